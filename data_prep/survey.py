"""What a split of shards is like, from some of its samples: chosen by a seed, read, measured."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.progress import Progress
from pix2pix.data.index import PAIRS, index_shard
from pix2pix.data.order import permutation
from pix2pix.data.shards import Split
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError, chroma_spread, open_photo
from pix2pix.system.machine import num_cores

Place = tuple[int, int]  # offset and size in a tar, bytes


@dataclass(frozen=True)
class Sample:
    """Where a sample lies. gray, color, about: the places of its members in the tar."""

    shard: Path
    key: str
    gray: Place
    color: Place
    metadata: Place

    @property
    def name(self) -> str:
        """As errors name it: "SHARD/KEY"."""
        return f"{self.shard.name}/{self.key}"


@dataclass(frozen=True)
class Measured:
    """What is known of a sample.

    source: name of the photograph. photo_width, photo_height: its size before it was resized,
    pixels. chroma: `chroma_spread` of the color picture, 0 to 255.
    """

    sample: Sample
    source: str
    photo_width: int
    photo_height: int
    chroma: float


def choose(sample_counts: Sequence[int], most: int, seed: int) -> list[tuple[int, int]]:
    """(shard, index within it) of `most` samples chosen by `seed`, or of all, in their order.

    A smaller `most` chooses some of the same.
    """
    ends = list(accumulate(sample_counts, initial=0))
    chosen = np.sort(permutation(ends[-1], seed, "preview")[:most])
    shards = np.searchsorted(ends, chosen, side="right") - 1
    return [(int(shard), int(n) - ends[shard]) for shard, n in zip(shards, chosen, strict=True)]


def locate(root: Path, split: Split, chosen: Sequence[tuple[int, int]]) -> list[Sample]:
    """The samples chosen. Raises UserError where a shard is damaged."""
    tables = {}
    for shard in sorted({shard for shard, _ in chosen}):
        entry = split.shards[shard]
        tables[shard] = index_shard(root / entry.name)
        if tables[shard].num_samples != entry.num_samples:
            raise UserError(
                f"the shard {root / entry.name} has {tables[shard].num_samples} samples, the "
                f"manifest says {entry.num_samples}; copy it again, or make it again"
            )
    samples = []
    for shard, index in chosen:
        table = tables[shard]
        places = (table.place(member, index) for member in PAIRS)
        samples.append(Sample(root / split.shards[shard].name, table.key(index), *places))
    return samples


def measure(samples: Sequence[Sample], progress: Progress) -> list[Measured]:
    """Read and measure every sample, on all cores. Raises UserError, naming a broken one."""
    progress.begin(0, len(samples))
    measured = []
    # Threads do: decoding and arithmetic leave the interpreter to the others.
    with ThreadPoolExecutor(num_cores()) as pool:
        try:
            for one in pool.map(_measure, samples):
                measured.append(one)
                progress.advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
    return measured


def read_picture(sample: Sample, place: Place) -> Image.Image:
    """The picture at `place`, gray or color; raises UserError, naming the sample."""
    try:
        return open_photo(_read(sample.shard, place))
    except (OSError, PhotoError) as error:
        raise _broken(sample, error) from error


def _measure(sample: Sample) -> Measured:
    try:
        metadata = json.loads(_read(sample.shard, sample.metadata))
        size = int(metadata["photo_width"]), int(metadata["photo_height"])
        source = os.fsencode(metadata["source"]).decode(errors="replace")  # names need not be UTF-8
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(sample, error) from error
    chroma = chroma_spread(read_picture(sample, sample.color))
    return Measured(sample, source, *size, chroma)


def _read(shard: Path, place: Place) -> bytes:
    offset, size = place
    with shard.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)


def _broken(sample: Sample, error: Exception) -> UserError:
    return UserError(
        f"broken sample {sample.name} in {sample.shard.parent} ({error}); make the shard again: "
        "remove it, and run make_shards as before"
    )
