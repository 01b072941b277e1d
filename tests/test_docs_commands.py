"""Every command that README and docs name works, in order, page by page, with tiny networks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.photographs import write_folder
from tests.test_docs import PAGES, ROOT, code_in_prose, sh_commands, with_flags

# Put into a command, or in place of what it has, so that a network learns nothing in little time.
SMALLER: dict[str, dict[str, object]] = {
    "data_prep.make_shards": {"short_side": 72, "min_short_side": 72, "num_workers": 1},
    "scripts/train.py": {
        "image_size": 64,
        "generator_width": 4,
        "discriminator_width": 4,
        "global_batch": 4,
        "total_steps": 2,
    },
    "accelerate launch --multi_gpu": {"num_processes": 2},
    "benchmark.py checkpoint": {
        "image_size": 64,
        "generator_width": 4,
        "discriminator_width": 4,
        "repeats": 1,
    },
    "benchmark.py end_to_end": {
        "image_size": 64,
        "width": 4,
        "batch_size": 4,
        "num_samples": 16,
        "rounds": 1,
        "num_workers": 0,
    },
    "benchmark.py loader": {"num_batches": 2, "rounds": 1, "num_workers": 1},
    "benchmark.py prep": {"rounds": 1, "seconds_per_turn": 0.1, "num_workers": 1},
    "benchmark.py scaling": {
        "image_size": 64,
        "width": 4,
        "batch_size": 2,
        "rounds": 1,
        "seconds_per_turn": 0.1,
    },
    "benchmark.py step": {
        "image_size": 64,
        "width": 4,
        "batch_size": 2,
        "rounds": 1,
        "seconds_per_turn": 0.1,
    },
}
SMALLER_DEMO = {"image_size": 64, "generator_width": 4, "discriminator_width": 4, "total_steps": 2}
PICTURE = "docs/images/demo.webp"
# What only its reader can fill in, and photographs as large as benchmarks ask for.
INSTEAD = {
    " PHOTOS": " large",
    " SHARDS": " shards",
    "loader --photos photos": "loader --photos large",
}

# Not run here, and why that is no loss.
ELSEWHERE = {
    "slurm.submit": "tests/slurm/test_cluster_pages.py runs these on a SLURM, in small",
    "slurm.status runs/coco-8": "the same",
    "slurm.status runs/sweep": "the same",
    "make test": "a suite does not run itself: .ci/run does",
    "make fuzz": "ten minutes: tests/fuzz/test_fuzz.py runs one of them",
    "make chaos": "tests/chaos/test_chaos.py runs it with ten kills",
    "make cluster": "tests/slurm/test_local_cluster.py starts and stops one",
    "make gpu": "needs a GPU: tests/gpu/test_prove.py runs its sections on a CPU, in small",
    "scripts/gpu.py": "the same",
    "pip download": "an index of packages",
    "make bench": "ten minutes: its benchmarks are run one by one, in small",
    "scripts/page.py": "a server: tests/web/test_page_in_browser.py uses the one that it starts",
    "make board": "a server: tests/training/test_board.py asks the one that it starts",
    "index_shards": "others' shards: tests/data_prep/test_index_shards.py makes such",
    "copy_shards shards s3": "a store: tests/data_prep/test_copy_shards.py has one of its own",
    "copy_shards shards hf": "the same",
    "copy_shards s3": "the same",
    "download_coco": "20 GB: tests/data_prep/test_download_coco.py has a server of its own",
    "pip install": "an index of packages: tests/test_packaging.py installs the wheel",
    "apt-get install": "an index of packages",
    "accelerate launch --module": "for the installed wheel: tests/test_packaging.py",
    "du -s": "sizes of what is not made here",
}

# Programs whose commands stand in prose and tables as well.
IN_PROSE = re.compile(r"(?:time )?(?:python|accelerate|make|pip|scripts/\S+|apt-get|du) \S")


def commands_of(page: str) -> list[str]:
    """What a page tells its reader to type: `sh` blocks in order, then what stands in prose."""
    in_prose = [code.removeprefix("time ") for code in code_in_prose(page) if IN_PROSE.match(code)]
    typed = [re.sub(r"^scripts/", "python scripts/", code) for code in in_prose]
    commands = sh_commands(page) + [command for command in typed if command != "accelerate launch"]
    return list(dict.fromkeys(commands))  # each once


def smaller(command: str) -> str:
    command = re.sub(r"\bmake ", "make -o .venv/.installed-demo ", command)  # it is installed
    for words, others in INSTEAD.items():
        command = command.replace(words, others)
    for program, flags in SMALLER.items():
        if program in command:
            command = with_flags(command, flags)
    return command


def runs_here(command: str) -> bool:
    return not any(words in command for words in ELSEWHERE)


RUN_HERE = [name for name, page in PAGES.items() if any(map(runs_here, commands_of(page)))]


def run(commands: list[str], checkout: Path) -> None:
    script = "\n".join(["set -euxo pipefail", *commands])
    variables = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"  # a reader has activated the environment
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=checkout,
        env=os.environ | variables | {"PYTHONPATH": str(checkout), "PATH": path},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


def assert_same_layout(made: Path, kept: Path) -> None:
    """Same size, and the columns that no network paints are alike: gray and truth."""
    with Image.open(made) as new, Image.open(kept) as old:
        assert new.size == old.size
        width, height = new.size
        for left in (0, 2 * width // 3):
            box = (left, 0, left + width // 3, height)
            difference = ImageChops.difference(new.crop(box), old.crop(box))
            assert max(ImageStat.Stat(difference).mean) < 2


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with its environment, and folders of photographs."""
    checkout = tmp_path_factory.mktemp("bare") / "checkout"
    left_out = shutil.ignore_patterns(".*", "runs", "out", "build", "dist", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    (checkout / ".venv").symlink_to(sys.prefix)
    recipe = checkout / "recipes" / "demo.yaml"
    text = recipe.read_text()
    for name, value in SMALLER_DEMO.items():
        text, count = re.subn(rf"^{name}:.*$", f"{name}: {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    recipe.write_text(text)
    write_folder(checkout / "photos", 40, width=90, height=72)
    write_folder(checkout / "old photographs", 2)
    write_folder(checkout / "large", 8, width=320, height=288)
    return checkout


@pytest.fixture(scope="module")
def prepared(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the README's first commands: the other pages begin with shards and a run."""
    checkout = tmp_path_factory.mktemp("prepared") / "checkout"
    shutil.copytree(bare, checkout, symlinks=True)
    readme = [smaller(command) for command in commands_of(PAGES["README.md"])]
    begin = next(n for n, command in enumerate(readme) if "make_shards" in command)
    run(readme[begin : begin + 2], checkout)
    return checkout


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN_HERE)
def test_every_command_of_a_page_works(page, request, tmp_path):
    start = request.getfixturevalue("bare" if page in ("README.md", "data.md") else "prepared")
    checkout = tmp_path / "checkout"
    shutil.copytree(start, checkout, symlinks=True)
    (checkout / PICTURE).unlink()
    commands = [smaller(command) for command in commands_of(PAGES[page]) if runs_here(command)]
    run(commands, checkout)
    if page == "README.md":
        assert f"]({PICTURE})" in PAGES[page]
        made = ["out/demo/contact_sheet.png", "report.json", "colored", "runs/two/checkpoints"]
        assert [name for name in made if not (checkout / name).exists()] == []
        assert_same_layout(checkout / PICTURE, ROOT / PICTURE)


def test_every_command_that_is_not_run_here_is_of_a_kind_that_stands_on_a_page():
    commands = [command for page in PAGES.values() for command in commands_of(page)]
    for words in ELSEWHERE:
        assert any(words in command for command in commands), words
    for words in [*SMALLER, *INSTEAD]:
        assert any(words in command for command in commands), words


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_where_this_test_finds_them(page):
    assert "```console" not in PAGES[page]
    assert "```bash" not in PAGES[page]
    assert re.findall(r"^    (?:python|accelerate|make) .*", PAGES[page], re.MULTILINE) == []
