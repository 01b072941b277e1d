"""`make demo`: its recipe is a training's, and fits the shards that its commands make."""

import re
from pathlib import Path

import pytest

from pix2pix.cli import parse
from pix2pix.config import TrainConfig
from pix2pix.data import crop_size

ROOT = Path(__file__).parents[1]
COMMANDS = (ROOT / "demo.mk").read_text()


@pytest.fixture(scope="module")
def recipe() -> TrainConfig:
    flags = {"shards": "shards", "run_dir": "run", "config": ROOT / "recipes" / "demo.yaml"}
    return parse(TrainConfig, [f"--{name}={value}" for name, value in flags.items()])


def test_crops_of_the_demos_shards_are_as_large_as_its_network(recipe):
    short_sides = re.findall(r"--short_side (\d+)", COMMANDS)
    assert len(short_sides) == 2  # train and val
    assert {crop_size(int(short_side)) for short_side in short_sides} == {recipe.image_size}


def test_batch_divides_by_as_many_gpus_as_the_demo_takes(recipe):
    assert "min(3, " in COMMANDS  # at most 2**3
    for num_processes in (1, 2, 4, 8):
        assert recipe.batch_per_rank(num_processes) >= 1


def test_nothing_of_the_machine_is_in_the_recipe(recipe):
    assert recipe.precision is None
    assert recipe.num_workers is None
    assert not recipe.compile


def test_an_interrupted_demo_loses_little(recipe):
    assert recipe.total_steps is not None
    assert 0 < recipe.checkpoint_every <= recipe.total_steps / 4
