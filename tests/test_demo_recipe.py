"""`make demo`: its recipe is a training's, and fits the commands around it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pix2pix.cli.command_line import parse
from pix2pix.config import TrainConfig
from pix2pix.data.preflight import crop_size

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def recipe() -> TrainConfig:
    flags = {"shards": "shards", "run_dir": "run", "config": ROOT / "recipes" / "demo.yaml"}
    return parse(TrainConfig, [f"--{name}={value}" for name, value in flags.items()])


def commands(folder: Path, num_gpus: int) -> str:
    """What `make demo` would run on a machine with `num_gpus` GPUs."""
    (folder / "torch.py").write_text(f"class cuda:\n    device_count = lambda: {num_gpus}\n")
    (folder / "python").write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    make = [shutil.which("make") or "make", "-f", "demo.mk", "--dry-run", "demo"]
    make += [f"VENV={folder}", f"BIN={folder}", f"--old-file={folder}/.installed-demo"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    ended = subprocess.run(make, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_crops_of_the_demos_shards_are_as_large_as_its_network(recipe, tmp_path):
    short_sides = re.findall(r"make_shards [^#]*?--short_side (\d+)", commands(tmp_path, 0))
    assert len(short_sides) == 2  # train and val
    assert {crop_size(int(short_side)) for short_side in short_sides} == {recipe.image_size}


@pytest.mark.parametrize(
    ("num_gpus", "num_processes"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (16, 8)]
)
def test_it_trains_on_every_gpu_that_its_batch_divides_by(
    recipe, tmp_path, num_gpus, num_processes
):
    told = commands(tmp_path, num_gpus)
    assert f"--num_processes {num_processes} " in told
    assert ("--multi_gpu" in told) == (num_processes > 1)
    assert recipe.batch_per_rank(num_processes) * num_processes == recipe.global_batch


def test_nothing_of_the_machine_is_in_the_recipe(recipe):
    assert recipe.precision is None
    assert recipe.num_workers is None
    assert not recipe.compile


def test_a_demo_that_is_killed_loses_little(recipe):
    assert recipe.total_steps is not None
    assert 0 < recipe.checkpoint_every <= recipe.total_steps / 5
