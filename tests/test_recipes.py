"""Every recipe is a training that starts: its flags are known, valid, and fit the GPUs it names."""

import re
from pathlib import Path

import pytest

from pix2pix.cli.command_line import parse, parse_all
from pix2pix.config import TrainConfig
from slurm.sweep import GridOptions, points_of

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
COCO_PHOTOGRAPHS = 118_287  # of train2017; a few fewer in shards
MOST_PHOTOGRAPHS_LOST = 70_000  # by a power cut: what lies between two checkpoints


def config_of(recipe: Path, *flags: str) -> TrainConfig:
    return parse(TrainConfig, ["--shards=s", "--run_dir=r", f"--config={recipe}", *flags])


def num_gpus(recipe: Path) -> int:
    """32 for coco_4x8gpu; a recipe without a number is for any machine, one GPU too."""
    named = re.search(r"_(?:(\d+)x)?(\d+)gpu", recipe.stem)
    return int(named[1] or 1) * int(named[2]) if named else 1


def test_there_is_a_recipe_for_each_size_of_machine():
    coco = {num_gpus(recipe) for recipe in RECIPES if recipe.stem.startswith("coco_")}
    assert coco == {1, 8, 32}
    assert {"demo", "classic", "pretrained"} <= {recipe.stem for recipe in RECIPES}


COCO = [r for r in RECIPES if r.stem.startswith("coco_") and not r.stem.endswith("_pretrained")]


@pytest.mark.parametrize("recipe", COCO, ids=lambda recipe: recipe.stem)
def test_a_coco_recipe_has_a_twin_with_a_pretrained_encoder(recipe):
    twin = config_of(recipe.with_stem(f"{recipe.stem}_pretrained"))
    differences = config_of(recipe).differences(twin)
    assert differences.identity == {"encoder": ("none", "efficientnet_lite0")}
    assert not differences.free


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_is_a_training_on_the_gpus_of_its_name(recipe):
    config = config_of(recipe).resolve(COCO_PHOTOGRAPHS)
    per_gpu = config.batch_per_rank(num_gpus(recipe))
    assert per_gpu * num_gpus(recipe) == config.global_batch
    assert config.warmup_steps < config.total_steps * config.decay_start
    assert config_of(recipe, "--seed=7").seed == 7  # a flag goes on top


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_with_batch_norm_gives_each_gpu_a_batch(recipe):
    config = config_of(recipe)
    if recipe.stem not in ("classic", "demo"):  # one at a time is what the classic is
        assert config.norm != "batch" or config.batch_per_rank(num_gpus(recipe)) >= 8


@pytest.mark.parametrize(
    "recipe", [r for r in RECIPES if r.stem.startswith("coco_")], ids=lambda recipe: recipe.stem
)
def test_a_long_training_that_is_killed_loses_minutes(recipe):
    config = config_of(recipe)
    assert 0 < config.checkpoint_every * config.global_batch <= 2 * MOST_PHOTOGRAPHS_LOST
    assert config.keep_checkpoints >= 2


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_says_what_it_is_for_and_how_to_start_it(recipe):
    text = recipe.read_text()
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 100
    assert f"recipes/{recipe.name}" in text or "`make demo`" in text


SWEEPS = sorted((Path(__file__).parents[1] / "recipes" / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("recipe", SWEEPS, ids=lambda recipe: recipe.stem)
def test_a_recipe_of_a_sweep_is_a_grid_of_trainings(recipe):
    flags = ["--shards=s", "--run_dir=r", f"--config={recipe}"]
    grid, config = parse_all((GridOptions, TrainConfig), flags)
    points = points_of(grid.grid, config)
    assert len(points) > 1
    assert {point.config.total_steps for point in points} == {625}
