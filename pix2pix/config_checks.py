"""Which values of a training's settings are refused: one by one, and beside each other."""

from collections.abc import Mapping
from typing import Any

from pix2pix.cli.options import Flag, enumerate_words, suggestion
from pix2pix.errors import UserError
from pix2pix.system.urls import check_places

IMAGE_SIZES = (64, 128, 256, 512)  # the U-Net halves the picture down to one pixel

_RANGES = (
    (
        "at least 1",
        lambda value: value >= 1,
        "global_batch window_shards generator_width discriminator_width total_steps epochs "
        "encoder_scale grad_accumulation_steps keep_checkpoints max_skipped_steps",
    ),
    (
        "0 or more",
        lambda value: value >= 0,
        "seed num_workers warmup_steps encoder_rate encoder_frozen_steps l1_weight log_every "
        "sample_every evaluate_every checkpoint_every profile",
    ),
    (
        "more than 0",
        lambda value: value > 0,
        "learning_rate time_limit_minutes collective_timeout_minutes shards_cache_gib",
    ),
    ("from 0 to 1", lambda value: 0 <= value <= 1, "decay_start"),
    ("from 0 to less than 1", lambda value: 0 <= value < 1, "beta1 ema_decay"),
)
MOST_ENCODER_PIXELS = 1024  # of a side: what scaled pictures may reach
_OF_AN_ENCODER = (
    *("encoder_weights", "encoder_scale", "encoder_rate"),
    *("encoder_frozen_steps", "encoder_recompute"),
)


def check_values(values: Mapping[str, Any], flags: Mapping[str, Flag]) -> None:
    """Raise UserError for a value that is out of range, or that another one contradicts."""
    _check_choices(values, flags)
    _check_ranges(values)
    check_places(values["shards"], values["shard_weights"])
    _check_image_size(values["image_size"])
    _check_encoder(values, flags)
    if values["total_steps"] is not None:
        _check_length(values)


def _check_choices(values: Mapping[str, Any], flags: Mapping[str, Flag]) -> None:
    for name, flag in flags.items():
        value = values[name]
        if flag.choices and value not in flag.choices and not (flag.optional and value is None):
            hint = suggestion(str(value), flag.choices)
            raise UserError(f"{name} must be {flag.expected}, not '{value}'{hint}")


def _check_ranges(values: Mapping[str, Any]) -> None:
    for words, holds, names in _RANGES:
        for name in names.split():
            value = values[name]
            if value is not None and not holds(value):
                raise UserError(f"{name} must be {words}, not {value}")


def _check_image_size(image_size: int) -> None:
    if image_size not in IMAGE_SIZES:
        below = [size for size in IMAGE_SIZES if size < image_size][-1:]
        above = [size for size in IMAGE_SIZES if size > image_size][:1]
        raise UserError(
            f"image_size {image_size} is not a power of two from {IMAGE_SIZES[0]} to "
            f"{IMAGE_SIZES[-1]}; use {enumerate_words(below + above, 'or')}"
        )


def _check_encoder(values: Mapping[str, Any], flags: Mapping[str, Flag]) -> None:
    """Raise UserError where a flag of an encoder is set, and there is none or none that can."""
    changed = [name for name in _OF_AN_ENCODER if values[name] != flags[name].default]
    if changed and values["encoder"] == "none":
        raise UserError(
            f"--{changed[0]} is of a pretrained encoder, and this training has none; give "
            f"--encoder, such as efficientnet_lite0, or leave --{changed[0]} at "
            f"{str(flags[changed[0]].default).lower()}"
        )
    size, scale = values["image_size"], values["encoder_scale"]
    if scale > 1 and scale * size > MOST_ENCODER_PIXELS:
        raise UserError(
            f"encoder_scale {scale} would show the encoder pictures of {scale * size:,} px; at "
            f"image_size {size} use {MOST_ENCODER_PIXELS // size} or less"
        )
    if values["encoder_recompute"] and values["compile"]:
        raise UserError(
            "--encoder_recompute and --compile do not go together: the compiler decides itself "
            "what it computes again; leave out one of them"
        )


def _check_length(values: Mapping[str, Any]) -> None:
    if values["epochs"] is not None:
        raise UserError(
            "total_steps and epochs both say how long the run is; give one of them "
            "(--epochs none unsets the one of a --config file)"
        )
    if values["warmup_steps"] >= values["total_steps"]:
        raise UserError(
            f"warmup_steps {values['warmup_steps']} is not less than the run's "
            f"{values['total_steps']} steps; lower warmup_steps or train longer"
        )
