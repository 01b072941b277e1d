"""Imports run downward only, the rooms without torch have none, and files and loops stay short."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.imports import OURS, HiddenImportError, import_graph, imported_names, reach

ROOT = Path(__file__).parents[1]

# A file imports from floors below its own, or sideways without a circle.
FLOORS = (
    "batch_memory charts color color_difference config contrast distributed durable errors "
    "feature_distance loader_server losses machine networks options order photo shards stop "
    "upsampling writer_claim",
    "baselines batch_stream board checkpoint_files checkpoint_share cli cli_help contact_sheet "
    "data feature_networks generator log metrics photo_files preflight reader run_directory "
    "saturation_curve scores state",
    "checkpoint evaluation model_card onnx_model step step_profile step_watch summary",
    "colorizer export report report_sheet run_evaluation trainer",
    "benchmark page page_server",
)
TOP = len(FLOORS) - 1  # data_prep, scripts and slurm too

# Data preparation starts many processes, and torch would cost each 500 MB: it uses these alone.
USED_BY_DATA_PREP = {
    "charts",
    "cli",
    "durable",
    "errors",
    "machine",
    "options",
    "order",
    "photo",
    "shards",
}
WITHOUT_TORCH = USED_BY_DATA_PREP | {
    "checkpoint_files",
    "cli_help",
    "config",
    "contact_sheet",
    "contrast",
    "feature_distance",
    "photo_files",
    "preflight",
    "run_directory",
    "stop",
    "scores",
    "writer_claim",
}
WITHOUT_RANKS = {"color", "losses", "networks", "order"}

MAX_FILE_LINES = 320
MAX_LOOP_LINES = 40


def floor_of(module: str) -> int | None:
    """0 at the bottom; None for a file of pix2pix without one."""
    package, _, name = module.partition(".")
    if package != "pix2pix":
        return TOP
    if not name:
        return 0  # pix2pix/__init__.py
    name = name.partition(".")[0]  # the rooms of a folder share its floor
    return next((floor for floor, names in enumerate(FLOORS) if name in names.split()), None)


def faults(graph: Mapping[str, set[str]]) -> list[str]:
    """What is wrong with the imports of a source tree."""
    homeless = [f"{module} has no floor" for module in graph if floor_of(module) is None]
    return homeless or [*upward_arrows(graph), *circles(graph), *strangers(graph)]


def upward_arrows(graph: Mapping[str, set[str]]) -> Iterator[str]:
    for module in graph:
        for name in sorted(graph[module] & graph.keys()):
            if floor_of(name) > floor_of(module):
                yield f"{module} imports {name} from a floor above"


def circles(graph: Mapping[str, set[str]]) -> Iterator[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "circle: " + " ← ".join(error.args[1])


def strangers(graph: Mapping[str, set[str]]) -> Iterator[str]:
    """Names that do not belong where they are imported, by way of another file of ours or not."""
    for module in graph:
        room = module.removeprefix("pix2pix.")
        unwanted = set()
        if room in WITHOUT_RANKS:
            unwanted |= {"accelerate", "torch.distributed"}
        if room in WITHOUT_TORCH or is_in(module, "data_prep"):
            unwanted |= {"accelerate", "torch", "torchvision"}
        for name in sorted(reach(graph, module)):
            if is_in(name, *unwanted):
                yield f"{module} reaches {name}"
        if is_in(module, "data_prep"):
            for name in sorted(graph[module]):
                package, _, other = name.partition(".")
                if package == "pix2pix" and other and other not in USED_BY_DATA_PREP:
                    yield f"{module} imports {name}, which is not for data preparation"


def is_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_imports_run_downward_and_keep_to_their_rooms():
    graph = import_graph(ROOT)
    assert {"pix2pix.trainer", "data_prep.writer", "scripts.train"} <= graph.keys()
    assert "pix2pix.trainer" in graph["scripts.train"]
    assert "torch.Tensor" in reach(graph, "pix2pix.trainer")
    assert faults(graph) == []


def test_the_floors_that_the_docs_draw_are_these():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d) \|([^|]*)\|", page, re.MULTILINE)
    drawn = {room: int(n) for n, rooms in rows for room in re.findall(r"\w+", rooms)}
    modules = [module for module in import_graph(ROOT) if module.startswith("pix2pix.")]
    assert drawn == {module.split(".")[1]: floor_of(module) for module in modules}


FORMS = [
    "import pix2pix.trainer",
    "import pix2pix.trainer as t",
    "import os, pix2pix.trainer",
    "from pix2pix import trainer",
    "from pix2pix import errors, trainer as t",
    "from pix2pix.trainer import Trainer",
    "from pix2pix.trainer import *",
    "from . import trainer",
    "from .trainer import Trainer",
    "def f():\n    from pix2pix.trainer import Trainer",
    "class C:\n    async def f(self):\n        import pix2pix.trainer",
    "if TYPE_CHECKING:\n    from pix2pix.trainer import Trainer",
    "try:\n    pass\nexcept ImportError:\n    import pix2pix.trainer",
    "import pix2pix\npix2pix.trainer.Trainer()",
    "import pix2pix as p\ndef f(x: p.trainer.Trainer): ...",
    "import importlib\nimportlib.import_module('pix2pix.trainer')",
    "import importlib as i\ni.import_module('.trainer', 'pix2pix')",
    "from importlib import import_module as load\nload('.trainer', package='pix2pix')",
    "from importlib import import_module\nimport_module('.trainer', __package__)",
    "__import__('pix2pix.trainer')",
    "import builtins\nbuiltins.__import__('pix2pix.trainer')",
    "exec('import pix2pix.trainer')",
    "eval('__import__(\"pix2pix.trainer\")')",
    "run([sys.executable, '-m', 'pix2pix.trainer'])",
    "run([sys.executable, '-c', 'from pix2pix.trainer import Trainer'])",
    "pkgutil.resolve_name('pix2pix.trainer:Trainer')",
    "sys.modules['pix2pix.trainer']",
]


@pytest.mark.parametrize("code", FORMS)
def test_an_import_of_any_form_that_runs_up_is_a_fault(tmp_path, code):
    tree = write_tree(tmp_path, {"pix2pix/state.py": code, "pix2pix/trainer.py": ""})
    assert faults(import_graph(tree)) == [
        "pix2pix.state imports pix2pix.trainer from a floor above"
    ]


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"pix2pix/novel.py": ""}, "pix2pix.novel has no floor"),
        ({"pix2pix/sub/novel.py": ""}, "pix2pix.sub.novel has no floor"),
        (
            {"pix2pix/__init__.py": "from . import data"},
            "pix2pix imports pix2pix.data from a floor above",
        ),
        ({"pix2pix/__init__.py": "from .data import x"}, "pix2pix imports pix2pix.data from"),
        ({"pix2pix/cli.py": "import data_prep.photos"}, "pix2pix.cli imports data_prep.photos"),
        ({"pix2pix/step.py": "from scripts import train"}, "pix2pix.step imports scripts.train"),
        (
            {"pix2pix/log.py": "from pix2pix import data", "pix2pix/data.py": "import pix2pix.log"},
            "circle: ",
        ),
        ({"pix2pix/losses.py": "import torch.distributed"}, "pix2pix.losses reaches torch.distrib"),
        ({"pix2pix/order.py": "import torch\ntorch.distributed.barrier()"}, "torch.distributed"),
        ({"pix2pix/color.py": "from torch import distributed"}, "pix2pix.color reaches torch.dist"),
        (
            {
                "pix2pix/networks.py": "from pix2pix import errors",
                "pix2pix/errors.py": "from accelerate import Accelerator",
            },
            "pix2pix.networks reaches accelerate.Accelerator",
        ),
        ({"pix2pix/cli.py": "def f():\n    import torch"}, "pix2pix.cli reaches torch"),
        ({"data_prep/photos.py": "import torch"}, "data_prep.photos reaches torch"),
        ({"data_prep/photos.py": "import pix2pix.data"}, "data_prep.photos imports pix2pix.data,"),
    ],
)
def test_a_tree_with_a_fault_is_told_what_it_is(tmp_path, files, fault):
    whole = {"pix2pix/data.py": "", "data_prep/photos.py": "", "scripts/train.py": ""} | files
    assert any(fault in found for found in faults(import_graph(write_tree(tmp_path, whole))))


def test_a_tree_without_a_fault_has_none(tmp_path):
    files = {
        "pix2pix/data.py": "import torch, numpy\nfrom .shards import Split",
        "pix2pix/shards.py": '"""python -m data_prep.photos and import nothing."""',
        "data_prep/photos.py": "from pix2pix.shards import Split",
        "scripts/train.py": "from pix2pix import data\nfrom data_prep import photos",
    }
    assert faults(import_graph(write_tree(tmp_path, files))) == []


@pytest.mark.parametrize(
    "code", ["import importlib\nimportlib.import_module(name)", "__import__(f'pix2pix.{name}')"]
)
def test_an_import_by_a_computed_name_is_refused(code):
    with pytest.raises(HiddenImportError, match="write the name out"):
        imported_names(code, "pix2pix")


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, code in ({"pix2pix/__init__.py": ""} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code + "\n")
    return root


def test_importing_what_needs_no_torch_loads_none():
    modules = ["pix2pix", *(f"pix2pix.{room}" for room in sorted(WITHOUT_TORCH))]
    light = ("data_prep", "slurm.local")
    modules += [module for module in import_graph(ROOT) if module.startswith(light)]
    assert not {"torch", "torchvision", "accelerate"} & loaded_by(modules)


def test_importing_the_package_is_light():
    assert not {"numpy", "PIL", "fire"} & loaded_by(["pix2pix"])


def loaded_by(modules: list[str]) -> set[str]:
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


def test_every_file_is_one_evenings_reading_at_most():
    files = [path for package in OURS for path in (ROOT / package).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert len(lengths) > 30
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_the_training_loop_fits_on_a_screen():
    tree = ast.parse((ROOT / "pix2pix" / "trainer.py").read_text())
    (fit,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "fit")
    assert fit.end_lineno - fit.lineno < MAX_LOOP_LINES
