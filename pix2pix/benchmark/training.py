"""A training as benchmarks start it: configuration, shards and a batch."""

import contextlib
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from data_prep.make_shards import MakeShardsOptions, make_shards
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.cli.command_line import parse
from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch, TrainMicroBatches
from pix2pix.data.shards import CROP_OF_SHORT_SIDE
from pix2pix.training.trainer import Trainer

_SYNTHETIC_PHOTOS = 48
_VAL_FRACTION = 1 / 6


def configure(recipe: Path | None = None, **values: object) -> TrainConfig:
    """Read a recipe as `train.py --config` does; values win over it, None is none."""
    given = {name: value for name, value in values.items() if value is not None}
    given |= {} if recipe is None else {"config": recipe}
    several = {name: value for name, value in given.items() if isinstance(value, tuple)}
    flags = [f"--{name}={value}" for name, value in given.items() if name not in several]
    for name, words in several.items():
        flags += [f"--{name}", *map(str, words)]
    return parse(TrainConfig, flags)


def prepare_shards(photos: Path | None, folder: Path, image_size: int) -> Path:
    """Make shards in `folder` for training at `image_size`, of `photos` or of synthetic ones.

    Their pictures are as large as this training needs: decoding larger ones takes cores from it.
    """
    if photos is None:
        photos = folder / "photos"
        write_photographs(photos, _SYNTHETIC_PHOTOS)
    options = MakeShardsOptions(
        photos=photos,
        out=folder / "shards",
        split="train",
        short_side=math.ceil(image_size / CROP_OF_SHORT_SIDE),
        val_fraction=_VAL_FRACTION,
    )
    with quietly():
        make_shards(options)
    return options.out


def first_batch(trainer: Trainer) -> Batch:
    """Return what this rank's first step sees, on the device."""
    ranks = trainer.distributed
    micro_batches = TrainMicroBatches(trainer.train, trainer.config, ranks.rank, ranks.world_size)
    return micro_batches[0].to(ranks.device)


@contextlib.contextmanager
def quietly(bars: bool = False) -> Iterator[None]:
    """Drop what is printed inside: a benchmark shows its own progress and its figures only.

    Bars and warnings of what it starts are about photographs, shards and runs of its own making.
    bars: show these all the same, of a training that is the benchmark itself.
    """
    shown = sys.stderr if bars else io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(shown):
        yield
