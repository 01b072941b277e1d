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

from pix2pix.cli.progress import progress
from pix2pix.data.data_set import DataSet
from pix2pix.data.order import permutation
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError, chroma_spread, luma, open_photo, open_reduced
from pix2pix.system.machine import num_cores

_ENOUGH = 143  # pixels of a short side, for the color of a picture: as index_shards measures it

Place = tuple[int, int]  # offset and size in a tar, bytes


@dataclass(frozen=True)
class Sample:
    """Where a sample lies: in `shard`, a tar of this name, its members at these places.

    gray: None for a picture that others packed; it is made of the color then.
    """

    shard: Path
    shard_name: str
    key: str
    gray: Place | None
    color: Place
    metadata: Place

    @property
    def name(self) -> str:
        """As errors name it: "SHARD/KEY"."""
        return f"{self.shard_name}/{self.key}"


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
    """Return (shard, index) of `most` samples chosen by `seed`, or of all, in their order.

    A smaller `most` chooses some of the same.
    """
    ends = list(accumulate(sample_counts, initial=0))
    chosen = np.sort(permutation(ends[-1], seed, "preview")[:most])
    shards = np.searchsorted(ends, chosen, side="right") - 1
    return [(int(shard), int(n) - ends[shard]) for shard, n in zip(shards, chosen, strict=True)]


def choose_nearby(
    sample_counts: Sequence[int], most: int, seed: int, most_shards: int
) -> list[tuple[int, int]]:
    """Choose as `choose` does, but from `most_shards` shards: each of them is fetched whole."""
    near = set(permutation(len(sample_counts), seed, "preview")[:most_shards].tolist())
    counts = [count if shard in near else 0 for shard, count in enumerate(sample_counts)]
    return choose(counts, most, seed)


def locate(data: DataSet, chosen: Sequence[tuple[int, int]]) -> list[Sample]:
    """Return the samples chosen. Raises UserError if a shard is damaged or cannot be fetched."""
    indexes = {shard: data.index(data.split.shards[shard]) for shard in {one for one, _ in chosen}}
    tars = {shard: data.tar(data.split.shards[shard]) for shard in indexes}
    are_pairs = data.split.kind == "pairs"
    samples = []
    for shard, number in chosen:
        index = indexes[shard]
        gray = index.place("gray", number) if are_pairs else None
        color = index.place("color" if are_pairs else "picture", number)
        metadata = index.place("metadata", number)
        name = data.split.shards[shard].name
        samples.append(Sample(tars[shard], name, index.key(number), gray, color, metadata))
    return samples


def measure(samples: Sequence[Sample]) -> list[Measured]:
    """Read and measure every sample, on all cores. Raises UserError, naming a broken one."""
    # Threads do: decoding and arithmetic leave the interpreter to the others.
    with ThreadPoolExecutor(num_cores()) as pool:
        try:
            with progress("samples", len(samples), pool.map(_measure, samples)) as measured:
                return list(measured)
        finally:
            pool.shutdown(cancel_futures=True)


def read_gray(sample: Sample) -> Image.Image:
    """Return the sample in gray; raises UserError, naming the sample."""
    if sample.gray is None:
        return luma(read_color(sample))
    return _open(sample, sample.gray)


def read_color(sample: Sample) -> Image.Image:
    """Return the sample in color; raises UserError, naming the sample."""
    return _open(sample, sample.color)


def _open(sample: Sample, place: Place) -> Image.Image:
    try:
        return open_photo(_read(sample.shard, place))
    except (OSError, PhotoError) as error:
        raise _broken(sample, error) from error


def _measure(sample: Sample) -> Measured:
    if sample.gray is None:
        return _measure_picture(sample)
    try:
        metadata = json.loads(_read(sample.shard, sample.metadata))
        size = int(metadata["photo_width"]), int(metadata["photo_height"])
        source = os.fsencode(metadata["source"]).decode(errors="replace")  # names need not be UTF-8
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(sample, error) from error
    return Measured(sample, source, *size, chroma_spread(read_color(sample)))


def _measure_picture(sample: Sample) -> Measured:
    """Measure a picture that others packed: it has its own size, and no source but its place."""
    try:
        photo, (width, height) = open_reduced(_read(sample.shard, sample.color), _ENOUGH)
    except (OSError, PhotoError) as error:
        raise _broken(sample, error) from error
    reduction = max(1, min(photo.size) // _ENOUGH)
    return Measured(sample, sample.name, width, height, chroma_spread(photo.reduce(reduction)))


def _read(shard: Path, place: Place) -> bytes:
    offset, size = place
    with shard.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)


def _broken(sample: Sample, error: Exception) -> UserError:
    mend = "make the shard again: remove it, and run make_shards as before"
    if sample.gray is None:
        mend = "index the shards again"
    return UserError(f"broken sample {sample.name} in {sample.shard.parent} ({error}); {mend}")
