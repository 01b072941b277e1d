"""What `lint-imports` can't say of the rooms, and that files and the training loop stay short.

The floors themselves are contracts in pyproject.toml, which `make lint` checks.
"""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pix2pix", "data_prep", "slurm", "scripts")

# Loaded before a command's work starts, or by workers of data preparation: these load no torch.
LIGHT_ROOMS = ("pix2pix.cli", "pix2pix.photos", "pix2pix.system", "data_prep", "slurm.local")
LIGHT_MODULES = (
    "pix2pix",
    "pix2pix.config",
    "pix2pix.colorizing.contact_sheet",
    "pix2pix.colorizing.contrast",
    "pix2pix.data.loader_server",
    "pix2pix.data.order",
    "pix2pix.data.preflight",
    "pix2pix.data.shards",
    "pix2pix.model.size",
    "pix2pix.run.checkpoint_files",
    "pix2pix.run.claim",
    "pix2pix.run.run_directory",
    "pix2pix.training.plan",
)

# Imported where they are needed: not by a training on prepared shards in a folder.
SPECIAL = (
    "pix2pix.data.cache",
    "pix2pix.data.fetch",
    "pix2pix.data.prefetch",
    "pix2pix.data.tar_members",
    "pix2pix.export.generator",
    "pix2pix.model.encoder",
    "pix2pix.photos.photo",
    "pix2pix.photos.resize",
    "pix2pix.run.weights",
)

MAX_FILE_LINES = 320
MAX_LOOP_LINES = 40


def modules_below(name: str) -> list[str]:
    folder = ROOT / name.replace(".", "/")
    files = [path.relative_to(ROOT).with_suffix("") for path in sorted(folder.rglob("*.py"))]
    return [".".join(file.parts).removesuffix(".__init__") for file in files]


def loaded_by(modules: list[str]) -> set[str]:
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


def test_importing_what_needs_no_torch_loads_none():
    modules = [*LIGHT_MODULES, *(name for room in LIGHT_ROOMS for name in modules_below(room))]
    assert not {"torch", "torchvision", "accelerate"} & loaded_by(modules)


def test_the_trainer_loads_nothing_that_only_special_trainings_need():
    assert all((ROOT / f"{name.replace('.', '/')}.py").exists() for name in SPECIAL)
    assert not set(SPECIAL) & loaded_by(["pix2pix.training.trainer"])


def test_importing_the_package_is_light():
    assert not {"numpy", "PIL", "fire", "torch"} & loaded_by(["pix2pix"])


def test_the_package_offers_what_users_import():
    names = "Colorizer, Generator, TrainConfig, open_photo"
    code = f"from pix2pix import {names}; print(*(one.__name__ for one in ({names})), sep=', ')"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == names


def test_the_package_names_what_it_does_not_have():
    import pix2pix

    assert {"Colorizer", "open_photo"} <= set(dir(pix2pix))
    with pytest.raises(AttributeError, match="no attribute 'Coloriser'"):
        _ = pix2pix.Coloriser


def test_maths_does_not_mention_torch_distributed():
    files = [*(ROOT / "pix2pix" / "model").glob("*.py"), ROOT / "pix2pix" / "data" / "order.py"]
    assert len(files) > 4
    assert [file.name for file in files if "torch.distributed" in file.read_text()] == []
    assert [file.name for file in files if "import distributed" in file.read_text()] == []


def test_the_initializer_of_a_room_imports_nothing():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            tree = ast.parse(path.read_text())
            imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
            names = {ast.unparse(node) for node in imports}
            expected = {"import importlib", "import sys", "from typing import Any"}
            assert names == (expected if path.parent.name == "pix2pix" else set()), path


def test_every_room_has_its_floor_and_the_docs_draw_the_same():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    floors = [[room.strip() for room in layer.split(":")] for layer in layers]
    rooms = {room for floor in floors for room in floor}
    children = {path.stem for path in (ROOT / "pix2pix").glob("[a-z]*") if path.name != "py.typed"}
    assert rooms == {f"pix2pix.{name}" for name in children} | {"data_prep", "scripts", "slurm"}

    page = (ROOT / "docs" / "architecture.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| ") and "`" in line]
    drawn = [line for line in table if line.split("|")[1].strip().isdecimal()]
    assert len(drawn) == len(floors)
    for line, floor in zip(drawn, floors, strict=True):
        paths = {room.replace(".", "/") for room in floor}
        named = {name.rstrip("/").removesuffix(".py") for name in line.split("`")[1::2]}
        assert paths <= named, line


def test_every_file_is_one_evenings_reading_at_most():
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert len(lengths) > 30
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_the_training_loop_fits_on_a_screen():
    tree = ast.parse((ROOT / "pix2pix" / "training" / "trainer.py").read_text())
    (fit,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_train")
    assert fit.end_lineno - fit.lineno < MAX_LOOP_LINES
