"""What a training's configuration promises: valid or refused, resolved, bound to its run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pix2pix.cli.command_line import parse
from pix2pix.cli.help import help_text
from pix2pix.cli.options import arguments_of
from pix2pix.config import IDENTITY_FIELDS, TrainConfig
from pix2pix.errors import UserError

RECIPES = Path(__file__).parents[1] / "recipes"
FOLDERS = ["--shards", "shards", "--run_dir", "run"]


def config(**values: Any) -> TrainConfig:
    return TrainConfig(**{"shards": ("shards",), "run_dir": Path("run")} | values)


def refusal(**values: Any) -> str:
    with pytest.raises(UserError) as caught:
        config(**values)
    return str(caught.value)


def test_flags_of_a_training_are_these():
    assert [field.name for field in dataclasses.fields(TrainConfig)] == [
        *["shards", "run_dir", "init_from", "seed", "time_limit_minutes"],
        *["collective_timeout_minutes", "max_skipped_steps"],
        *["image_size", "global_batch", "window_shards"],
        *["shard_weights", "shards_cache", "shards_cache_gib", "num_workers"],
        *["color_space", "norm", "dropout", "generator_width", "encoder", "encoder_weights"],
        *[
            "encoder_scale",
            "encoder_rate",
            "encoder_frozen_steps",
            "encoder_recompute",
            "discriminator_width",
        ],
        *["total_steps", "epochs", "learning_rate", "warmup_steps", "decay_start", "beta1"],
        *["l1_weight", "gan_loss", "ema_decay", "precision", "grad_accumulation_steps"],
        *["gradient_compression", "compile"],
        *["log_every", "sample_every", "evaluate_every", "checkpoint_every", "keep_checkpoints"],
        "profile",
    ]


def test_no_flags_but_the_folders_give_the_defaults():
    assert parse(TrainConfig, FOLDERS) == config()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"image_size": 200},
            "image_size 200 is not a power of two from 64 to 512; use 128 or 256",
        ),
        ({"image_size": 32}, "use 64"),
        ({"image_size": 1024}, "use 512"),
        ({"image_size": -1}, "use 64"),
        ({"global_batch": 0}, "global_batch must be at least 1, not 0"),
        ({"total_steps": 0}, "total_steps must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"max_skipped_steps": 0}, "max_skipped_steps must be at least 1"),
        ({"collective_timeout_minutes": 0.0}, "collective_timeout_minutes must be more than 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"grad_accumulation_steps": 0}, "grad_accumulation_steps must be at least 1"),
        ({"num_workers": -1}, "num_workers must be 0 or more, not -1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"log_every": -1}, "log_every must be 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate must be more than 0"),
        ({"time_limit_minutes": 0.0}, "time_limit_minutes must be more than 0"),
        ({"decay_start": 1.1}, "decay_start must be from 0 to 1, not 1.1"),
        ({"beta1": 1.0}, "beta1 must be from 0 to less than 1, not 1.0"),
        ({"ema_decay": 1.0}, "ema_decay must be from 0 to less than 1"),
        (
            {"norm": "bacth"},
            "norm must be batch, instance or sync_batch, not 'bacth'; did you mean",
        ),
        ({"precision": "fp8"}, "precision must be no, fp16 or bf16, or none, not 'fp8'"),
        ({"encoder_rate": 0.3}, "--encoder_rate is of a pretrained encoder, and this training has"),
        ({"encoder_weights": "hub"}, "or leave --encoder_weights at auto"),
        (
            {"encoder": "resnet18", "encoder_scale": 50},
            "encoder pictures of 12,800 px; at image_size 256 use 4 or less",
        ),
        ({"encoder_recompute": True}, "give --encoder, such as efficientnet_lite0"),
        (
            {"encoder": "resnet18", "encoder_recompute": True, "compile": True},
            "--encoder_recompute and --compile do not go together",
        ),
        ({"total_steps": 5, "epochs": 1}, "total_steps and epochs both"),
        (
            {"total_steps": 5, "warmup_steps": 5},
            "warmup_steps 5 is not less than the run's 5 steps",
        ),
    ],
)
def test_value_out_of_range_is_refused(values, words):
    assert words in refusal(**values)


def test_bounds_themselves_are_allowed():
    config(decay_start=0.0, ema_decay=0.0, beta1=0.0, log_every=0, num_workers=0, l1_weight=0.0)
    config(decay_start=1.0, image_size=64)
    config(image_size=512, total_steps=2, warmup_steps=1)


@pytest.mark.parametrize(
    ("batch", "ranks", "micro_batches", "expected"),
    [(16, 1, 1, 16), (16, 4, 1, 4), (16, 2, 4, 2), (64, 8, 1, 8), (8, 8, 1, 1)],
)
def test_global_batch_divides_over_ranks_and_micro_batches(batch, ranks, micro_batches, expected):
    training = config(global_batch=batch, grad_accumulation_steps=micro_batches)
    assert training.batch_per_rank(ranks) == expected


@pytest.mark.parametrize(
    ("batch", "ranks", "micro_batches", "words"),
    [
        (60, 8, 1, "global_batch 60 does not divide by 8 ranks; use 56 or 64"),
        (4, 8, 1, "global_batch 4 does not divide by 8 ranks; use 8"),
        (
            60,
            4,
            2,
            "global_batch 60 does not divide by 4 ranks × 2 micro-batches; use 56 or 64",
        ),
        (5, 1, 2, "does not divide by 1 rank × 2 micro-batches; use 4 or 6"),
    ],
)
def test_indivisible_global_batch_suggests_the_nearest_that_divide(
    batch, ranks, micro_batches, words
):
    with pytest.raises(UserError) as caught:
        config(global_batch=batch, grad_accumulation_steps=micro_batches).batch_per_rank(ranks)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "num_samples", "total_steps"),
    [
        ({}, 4000, 6250),  # 25 epochs
        ({"epochs": 1}, 16, 1),
        ({"epochs": 1}, 17, 2),
        ({"epochs": 3}, 20, 4),  # 60 samples: the steps go on over an epoch's end
        ({"total_steps": 7}, 4000, 7),
    ],
)
def test_resolve_turns_epochs_into_steps(values, num_samples, total_steps):
    resolved = config(**values).resolve(num_samples)
    assert resolved == config(total_steps=total_steps)
    assert resolved.resolve(num_samples) == resolved


def test_fewer_samples_than_one_global_batch_are_refused():
    with pytest.raises(
        UserError, match=r"12 samples, fewer than one global batch of 16; lower --gl"
    ):
        config().resolve(12)
    config(epochs=1).resolve(16)


def test_warmup_longer_than_the_resolved_run_is_refused():
    with pytest.raises(UserError, match="warmup_steps 100 is not less than the run's 2 steps"):
        config(epochs=1, warmup_steps=100).resolve(32)


def test_learning_rate_warms_up_stays_and_falls_linearly_to_zero():
    training = config(total_steps=100, learning_rate=1.0, warmup_steps=4, decay_start=0.6)
    rates = [training.learning_rate_at(step) for step in range(101)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert set(rates[3:61]) == {1.0}
    assert rates[61:] == pytest.approx([1 - n / 40 for n in range(1, 41)])
    assert rates[100] == 0


def test_learning_rate_without_warmup_and_decay_is_constant():
    training = config(total_steps=10, learning_rate=3e-4, decay_start=1.0)
    assert {training.learning_rate_at(step) for step in range(10)} == {3e-4}


def test_average_follows_early_steps_and_is_off_at_zero():
    decays = [config(ema_decay=0.9).ema_decay_at(step) for step in (0, 1, 71, 80, 10_000)]
    assert decays == pytest.approx([0.1, 2 / 11, 72 / 81, 0.9, 0.9])
    assert config(ema_decay=0.0).ema_decay_at(5) == 0


def test_json_round_trip_is_exact():
    original = config(init_from=Path("other"), epochs=3, learning_rate=1e-4, precision="no")
    assert TrainConfig.from_json(json.loads(json.dumps(original.to_json()))) == original
    assert TrainConfig.from_json(json.loads(json.dumps(config().to_json()))) == config()


def test_json_of_another_version_is_refused_by_name():
    with pytest.raises(UserError, match="see focal_loss; use the version that saved it"):
        TrainConfig.from_json(config().to_json() | {"focal_loss": 1})
    with pytest.raises(UserError, match="see shards and run_dir"):
        TrainConfig.from_json({})


def test_json_without_a_newer_field_means_what_was_before_it(monkeypatch):
    values = config(ema_decay=0.5).to_json()
    del values["ema_decay"]
    monkeypatch.setitem(IDENTITY_FIELDS, "ema_decay", 0.25)
    assert TrainConfig.from_json(values) == config(ema_decay=0.25)


def test_differences_part_what_binds_a_run_from_what_may_change():
    mine = config(total_steps=10, seed=1, norm="instance")
    theirs = config(total_steps=20, log_every=1)
    differences = mine.differences(theirs)
    assert differences.identity == {"seed": (1, 0), "norm": ("instance", "batch")}
    assert differences.free == {"total_steps": (10, 20), "log_every": (10, 1)}
    assert mine.differences(mine) == ({}, {})


def test_identity_is_all_that_decides_the_numbers_of_a_step():
    free = {
        *["shards", "run_dir", "init_from", "time_limit_minutes", "num_workers"],
        "encoder_weights",  # their SHA-256 decides: training/pretrained.py
        *["shard_weights", "shards_cache", "shards_cache_gib"],  # weights: with the shards' digest
        *["collective_timeout_minutes", "max_skipped_steps"],
        *["total_steps", "epochs", "decay_start"],
        *["precision", "grad_accumulation_steps", "gradient_compression", "compile"],
        "encoder_recompute",  # the same to the bit
        *["log_every", "sample_every", "evaluate_every", "checkpoint_every", "keep_checkpoints"],
        "profile",
    }
    assert set(config().identity()) == {f.name for f in dataclasses.fields(TrainConfig)} - free
    assert config(seed=3).identity().keys() == IDENTITY_FIELDS.keys()
    assert config(seed=3).identity()["seed"] == 3


def test_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().seed = 1


def test_classic_recipe_is_the_notebook_setup_and_flags_win_over_it():
    recipe = ["--config", str(RECIPES / "classic.yaml")]
    classic = parse(TrainConfig, [*FOLDERS, *recipe])
    assert classic == config(
        color_space="rgb", global_batch=1, epochs=25, ema_decay=0.0, precision="no"
    )
    assert parse(TrainConfig, [*FOLDERS, *recipe, "--epochs=2"]).epochs == 2


def test_mistake_on_the_command_line_reaches_validation():
    with pytest.raises(UserError, match="image_size 200 is not a power of two"):
        parse(TrainConfig, [*FOLDERS, "--image_size", "200"])


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("width", "did you mean --generator_width or --discriminator_width?"),
        ("epoch", "did you mean --epochs?"),
        # other programs' names
        ("batch_size", "here it is --global_batch"),
        ("gradient_accumulation_steps", "here it is --grad_accumulation_steps"),
        ("lr", "here it is --learning_rate"),
        ("lambda_L1", "here it is --l1_weight"),
        ("amp", "here it is --precision"),
        ("resume", "nothing to give: the same command resumes"),
        ("gpus", "the launcher decides: accelerate launch --multi_gpu --num_processes N"),
    ],
)
def test_other_names_of_a_flag_lead_to_it(name, suggested):
    with pytest.raises(UserError) as caught:
        parse(TrainConfig, [*FOLDERS, f"--{name}", "3"])
    assert str(caught.value).endswith(f"; {suggested}")


def test_help_fits_80_columns_and_gives_a_long_flag_its_own_line():
    text = help_text(TrainConfig, program="python scripts/train.py")
    assert max(map(len, text.splitlines())) <= 80
    assert f"\n  --norm batch|instance|sync_batch\n{' ' * 32}normalization layers" in text


def test_the_command_line_of_a_configuration_gives_it_again():
    original = config(
        shards=("a", "https://host/b"), shard_weights=(1, 3), time_limit_minutes=2.5, dropout=False
    )
    assert parse(TrainConfig, arguments_of(original)) == original


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"shards": ("https://me:hush@host/x",)}, "carries a user or a password"),
        ({"shards": ("https://host/x?sig=hush",)}, "PIX2PIX_URL_QUERY"),
        ({"shards": ("ftp://host/x",)}, "'ftp:' is neither a relative path nor one of http"),
        ({"shards": ("a", "a")}, "names a folder twice"),
        ({"shards": ("a", "b"), "shard_weights": (1,)}, "1 values for 2 --shards"),
        ({"shard_weights": (0,)}, "whole numbers from 1 on"),
        ({"shards_cache_gib": 0.0}, "shards_cache_gib must be more than 0"),
    ],
)
def test_shards_that_cannot_be_are_refused_without_telling_a_secret(values, words):
    with pytest.raises(UserError) as caught:
        config(**values)
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)


def test_the_one_folder_of_an_earlier_version_is_read():
    values = config().to_json() | {"shards": "shards"}
    assert TrainConfig.from_json(values) == config()
