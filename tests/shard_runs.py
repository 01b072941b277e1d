"""Runs of make_shards on a small folder, for the tests of writing."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from data_prep.photos import FolderSource, digest_photos
from data_prep.shard_file import Prep
from data_prep.writer import SplitPlan, plan_splits, write_splits
from tests.photographs import colorful, encoded, grayish, write_folder

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # of other processes
NUM_COLOR = 23
NUM_PHOTOS = NUM_COLOR + 4


def write_photos(folder: Path) -> Path:
    """23 color photographs, and four that are rejected, each for another reason."""
    write_folder(folder, NUM_COLOR)
    (folder / "gray.png").write_bytes(encoded(grayish(), "PNG"))
    (folder / "small.png").write_bytes(encoded(colorful(80, 20), "PNG"))
    (folder / "broken.jpg").write_bytes(encoded(colorful(640, 480))[:3000])
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def plans_for(photos: Path, out: Path, split: str = "train", **changes) -> tuple[SplitPlan, ...]:
    source = FolderSource(photos)
    listed = source.list_photos()
    prep = Prep(
        photos=digest_photos(listed),
        num_photos=len(listed),
        seed=0,
        val_fraction=0.0,
        samples_per_shard=5,
        short_side=48,
        min_short_side=40,
        min_chroma=4.0,
    )
    return plan_splits(out, split, source, listed, replace(prep, **changes))


def write(plans: tuple[SplitPlan, ...], num_workers: int = 1) -> int:
    return write_splits(plans, num_workers)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is not a lock, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if ".lock" not in path.name}
