"""One shard looked at: is it what the manifest says, and can every sample of it be trained on?"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from pix2pix.data.index import COLOR, GRAY, key_and_kind, tar_files
from pix2pix.data.shards import Shard
from pix2pix.errors import UserError

_KINDS = (GRAY, COLOR, "json")
_FULL_CHROMA = 0  # what Pillow calls 4:4:4

Member = tuple[str, int, int]  # kind, offset and size in bytes


@dataclass(frozen=True)
class Fault:
    """Something wrong with a shard, or with the sample `key` of it."""

    shard: str
    problem: str
    key: str = ""


@dataclass(frozen=True)
class CheckTask:
    """A shard to look at, as the manifest names it. quick: size and index only."""

    root: Path
    shard: Shard
    short_side: int
    quick: bool


@dataclass(frozen=True)
class Checked:
    """What a look at one shard found. keys: [N] bytes, of the samples in it."""

    keys: NDArray[np.bytes_]
    faults: tuple[Fault, ...]


def check_shard(task: CheckTask, count: Callable[[], None]) -> Checked:
    """Look at one shard; `count` is called per sample. What is wrong is told, never raised."""
    keys: list[str] = []
    faults = tuple(_faults(task, keys, count))
    return Checked(np.array([key.encode() for key in keys], dtype=np.bytes_), faults)


def _faults(task: CheckTask, keys: list[str], count: Callable[[], None]) -> Iterator[Fault]:
    """The faults of a shard; its keys are added to `keys`."""
    shard = task.shard
    path = task.root / shard.name
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            if num_bytes != shard.bytes:
                yield Fault(shard.name, f"{num_bytes:,} bytes, not {shard.bytes:,}")
                return
            if not task.quick and file_digest(file, "sha256").hexdigest() != shard.sha256:
                yield Fault(shard.name, "bits have changed: its SHA-256 is another one")
            for key, members in _samples(path):
                keys.append(key)
                for problem in _problems(file.fileno(), members, task):
                    yield Fault(shard.name, problem, key)
                count()
        if len(keys) != shard.num_samples:
            yield Fault(shard.name, f"{len(keys):,} samples, not {shard.num_samples:,}")
    except FileNotFoundError:
        yield Fault(shard.name, "is missing")
    except OSError as error:
        yield Fault(shard.name, f"cannot be read: {error.strerror}")
    except UserError:  # by tar_files
        yield Fault(shard.name, "is cut short, or no plain tar")


def _samples(path: Path) -> Iterator[tuple[str, list[Member]]]:
    """Key and members of each sample, as far as they are adjacent; raises UserError."""
    files = tar_files(path)
    members = ((*key_and_kind(name), offset, size) for name, offset, size in files)
    for key, group in groupby(members, itemgetter(0)):
        yield (
            key.decode(errors="replace"),
            [(kind, offset, size) for _, kind, offset, size in group],
        )


def _problems(file: int, members: Sequence[Member], task: CheckTask) -> Iterator[str]:
    """What is wrong with one sample, whose members stand in the order of the file."""
    kinds = tuple(kind for kind, _, _ in members)
    if kinds != _KINDS:
        yield f"its members are {', '.join(kinds)}, not {', '.join(_KINDS)}"
    elif not task.quick:
        data = {kind: os.pread(file, size, offset) for kind, offset, size in members}
        try:
            metadata = json.loads(data["json"])
            size = (int(metadata["width"]), int(metadata["height"]))
        except (ValueError, KeyError, TypeError):
            yield "json does not tell width and height"
            return
        if min(size) != task.short_side:
            yield f"short side of {min(size)} pixels, not {task.short_side}"
        yield from _problems_of_picture(GRAY, data[GRAY], "L", size)
        yield from _problems_of_picture(COLOR, data[COLOR], "RGB", size)


def _problems_of_picture(kind: str, data: bytes, mode: str, size: tuple[int, int]) -> Iterator[str]:
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as picture:
            if picture.size != size:
                found = "{} x {}".format(*picture.size)
                yield f"{kind} has {found} pixels, not {size[0]} x {size[1]}"
            if picture.mode != mode:
                yield f"{kind} is {picture.mode}, not {mode}"
            elif mode == "RGB" and get_sampling(picture) != _FULL_CHROMA:
                yield f"{kind} has less chroma than 4:4:4"
            picture.load()
    except Exception as error:  # decoders raise nearly every type on broken input
        yield f"{kind} cannot be decoded: {error}"
