"""Checks of a training before it starts, at its submission and at its start (no torch)."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from pix2pix.config import TrainConfig
from pix2pix.data.data_set import DataSet, epoch_samples, open_training
from pix2pix.data.shards import CROP_OF_SHORT_SIDE, Split
from pix2pix.errors import UserError
from pix2pix.system.urls import is_url


def check_training(
    config: TrainConfig, train: Sequence[DataSet], world_size: int, on_cpu: bool
) -> TrainConfig:
    """Return `config` with its total_steps, if it fits the train splits and number of ranks.

    Raises:
        UserError: the batch does not divide, the photographs are too few or too small, or the
            device can't do what is asked.
    """
    config = config.resolve(epoch_samples(train))
    config.batch_per_rank(world_size)
    for data in train:
        check_image_size(data.split, config.image_size)
    if config.norm == "sync_batch" and on_cpu:
        raise UserError("norm sync_batch works on GPUs only; use --norm batch or instance")
    return config


def check_early(config: TrainConfig, world_size: int) -> None:
    """Raise UserError for what can be said before torch is imported, which takes seconds."""
    if any(is_url(place) for place in config.shards):
        config.batch_per_rank(world_size)  # one rank asks the server, when all have joined
        return
    train, _ = open_training(config)
    check_training(config, train, world_size, on_cpu=False)


def crop_size(short_side: int) -> int:
    """Return the side of the training crop from shards of this short side, in pixels."""
    return round(short_side * CROP_OF_SHORT_SIDE)


def check_image_size(split: Split, image_size: int) -> None:
    """Raise UserError where the shards' photographs are too small for `image_size`."""
    if crop_size(split.short_side) < image_size:
        needed = math.ceil(image_size / CROP_OF_SHORT_SIDE)
        raise UserError(
            f"image_size {image_size} is larger than the {crop_size(split.short_side)} px crops "
            f"of these shards (short side {split.short_side}); make shards with "
            f"--short_side {needed}, or train at a smaller --image_size"
        )


def check_free_disk(root: Path, num_bytes: int) -> None:
    """Raise UserError unless two checkpoints of `num_bytes` fit on the disk of `root`."""
    free = shutil.disk_usage(root).free
    if free < 2 * num_bytes:  # the next checkpoint is written before the last one goes
        raise UserError(
            f"{root} has {free / 2**30:.1f} GiB free, but two checkpoints need "
            f"{2 * num_bytes / 2**30:.1f} GiB; make room or choose another --run_dir"
        )
