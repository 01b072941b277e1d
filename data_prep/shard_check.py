"""One shard looked at: is it what the manifest says, and can every sample of it be trained on?"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from pix2pix.data.data_set import DataSet
from pix2pix.data.fetch import FetchError, read_all
from pix2pix.data.index import (
    COLOR,
    GRAY,
    index_bytes,
    index_path,
    index_shard,
    key_and_kind,
    parse_index,
    read_index,
    tar_files,
)
from pix2pix.data.shards import Shard
from pix2pix.errors import StorageError, UserError
from pix2pix.photos.photo import PhotoError, open_reduced
from pix2pix.system.light_webdataset import import_webdataset
from pix2pix.system.urls import is_url, join

_KINDS = (COLOR, GRAY, "json")  # webdataset's writer sorts them
_EARLIER_KINDS = (GRAY, COLOR, "json")  # of shards made before that writer
_FULL_CHROMA = 0  # what Pillow calls 4:4:4
_MOST_INDEX = 2**28  # bytes; one of 1,000 samples has 60 kB
_ENOUGH = 64  # pixels: a decoder reads every bit of a picture, and need not make it whole

Member = tuple[str, int, int]  # kind, offset and size in bytes


@dataclass(frozen=True)
class Fault:
    """Something wrong with a shard, or with the sample `key` of it."""

    shard: str
    problem: str
    key: str = ""


@dataclass(frozen=True)
class CheckTask:
    """A shard of `data` to look at, as the manifest names it. quick: size and index only."""

    data: DataSet
    shard: Shard
    quick: bool


@dataclass(frozen=True)
class Checked:
    """What a look at one shard found. keys: [N] bytes, of the samples in it."""

    keys: NDArray[np.bytes_]
    faults: tuple[Fault, ...]


def check_shard(task: CheckTask, count: Callable[[], None]) -> Checked:
    """Look at one shard; `count` is called per sample. What is wrong is told, never raised.

    One that lies at a URL is fetched for that, and kept only where it was in the cache before.
    """
    data, shard = task.data, task.shard
    cache = data.cache if data.is_cached(shard) else None
    was_there = cache is not None and cache.has(shard)
    keys: list[str] = []
    faults: list[Fault] = []
    try:
        for fault in _faults(task, data.tar(shard), keys, count):
            faults.append(fault)
    except FileNotFoundError:
        faults.append(Fault(shard.name, "is missing"))
    except OSError as error:
        faults.append(Fault(shard.name, f"cannot be read: {error.strerror}"))
    except (FetchError, StorageError) as error:
        faults.append(Fault(shard.name, str(error)))
    except UserError:  # by tar_files
        faults.append(Fault(shard.name, "is cut short, or no plain tar"))
    finally:
        if cache is not None and not was_there:
            cache.remove(cache.path(shard).name)
    return Checked(np.array([key.encode() for key in keys], dtype=np.bytes_), tuple(faults))


def _faults(
    task: CheckTask, path: Path, keys: list[str], count: Callable[[], None]
) -> Iterator[Fault]:
    """Return the faults of the shard at `path`; the keys of its pairs are added to `keys`."""
    shard = task.shard
    with path.open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes != shard.bytes:
            yield Fault(shard.name, f"{num_bytes:,} bytes, not {shard.bytes:,}")
            return
        if not task.quick and file_digest(file, "sha256").hexdigest() != shard.sha256:
            yield Fault(shard.name, "bits have changed: its SHA-256 is another one")
        if task.data.split.kind == "pictures":
            yield from _faults_of_pictures(task, path, file.fileno(), count)
            return
        proof = None if task.quick else _Proof(path)
        for key, members in _samples(path):
            keys.append(key)
            for problem in _problems(file.fileno(), key, members, task, proof):
                yield Fault(shard.name, problem, key)
            count()
    yield from (Fault(shard.name, problem) for problem in _problems_of_index(task, path))
    if proof is not None:
        yield from (Fault(shard.name, problem) for problem in proof.end())
    if len(keys) != shard.num_samples:
        yield Fault(shard.name, f"{len(keys):,} samples, not {shard.num_samples:,}")


def _faults_of_pictures(
    task: CheckTask, path: Path, file: int, count: Callable[[], None]
) -> Iterator[Fault]:
    """Return the faults of a shard that others made: of what its index says, nothing else."""
    shard = task.shard
    try:
        index = task.data.index(shard)
    except UserError as error:
        yield Fault(shard.name, str(error))
        return
    kinds = task.data.split.prep["image"]
    theirs = _by_webdataset(path) if not task.quick else iter(())
    for number in range(index.num_samples):
        count()
        if task.quick:
            continue
        key = index.key(number)
        offset, size = index.place("picture", number)
        picture = os.pread(file, size, offset)
        try:
            open_reduced(picture, _ENOUGH)
        except PhotoError as error:
            yield Fault(shard.name, f"its picture cannot be used: {error}", key)
        sample = next((one for one in theirs if one["__key__"] == key), {})
        if not any(sample.get(kind) == picture for kind in kinds):
            yield Fault(shard.name, "webdataset reads another picture, or no such sample", key)
            theirs = iter(())


class _Proof:
    """A shard as webdataset's own iterator reads it, beside the reader that training uses.

    The two share no code. After the first difference nothing more is compared: what follows would
    differ as well.
    """

    def __init__(self, path: Path) -> None:
        self._samples: Iterator[Mapping[str, Any]] | None = _by_webdataset(path)

    def compare(self, key: str, data: Mapping[str, bytes]) -> Iterator[str]:
        """Yield a problem if the next sample is not the one of this key and these members."""
        found = self._next()
        if isinstance(found, str):
            yield found
        elif found is not None and found != {"__key__": key, **data}:
            self._samples = None
            what = "another sample" if found["__key__"] != key else "other bytes"
            yield f"webdataset reads {what} here: {found['__key__']}"

    def end(self) -> Iterator[str]:
        """Yield a problem if there are more samples."""
        found = self._next(at_end=None)
        if found is not None:
            yield found if isinstance(found, str) else f"webdataset reads {found['__key__']}, too"

    def _next(self, at_end: str | None = "webdataset sees the end of the shard here") -> Any:
        """Return the next sample, or a problem. None where a difference was told already."""
        if self._samples is None:
            return None
        try:
            sample = next(self._samples, at_end)
        except Exception as error:  # tarfile and webdataset raise several types
            sample = f"webdataset cannot read it: {error.args[0] if error.args else error!r}"
        if not isinstance(sample, Mapping):
            self._samples = None
            return sample
        return {name: value for name, value in sample.items() if name != "__url__"}


def _by_webdataset(path: Path) -> Iterator[Mapping[str, Any]]:
    iterators = import_webdataset().tariterators
    with path.open("rb") as stream:
        files = iterators.tar_file_expander([{"url": path.name, "stream": stream}])
        yield from iterators.group_by_keys(files)


def _samples(path: Path) -> Iterator[tuple[str, list[Member]]]:
    """Yield key and members of each sample, as far as they are adjacent; raises UserError."""
    files = tar_files(path)
    members = ((*key_and_kind(name), offset, size) for name, offset, size in files)
    for key, group in groupby(members, itemgetter(0)):
        yield (
            key.decode(errors="replace"),
            [(kind, offset, size) for _, kind, offset, size in group],
        )


def _problems_of_index(task: CheckTask, path: Path) -> Iterator[str]:
    """Return faults of the index beside the shard; readers make one where there is none."""
    root, name = task.data.root, index_path(Path(), task.shard.name).name
    try:
        if is_url(root):  # not that of a cache: the one that trainings of others will fetch
            place = join(root, name)
            found = parse_index(read_all(place, _MOST_INDEX), place)
        else:
            found = read_index(Path(root, name))
        if index_bytes(found) != index_bytes(index_shard(path, task.shard.sha256)):
            yield f"{name} is the index of something else"
    except FileNotFoundError:
        return
    except FetchError as error:
        if not error.absent:
            yield str(error)
    except UserError as error:
        yield str(error)


def _problems(
    file: int, key: str, members: Sequence[Member], task: CheckTask, proof: _Proof | None
) -> Iterator[str]:
    """Return what is wrong with one sample, whose members stand in the order of the file."""
    kinds = tuple(kind for kind, _, _ in members)
    data = {} if task.quick else {kind: os.pread(file, size, at) for kind, at, size in members}
    if proof is not None:
        yield from proof.compare(key, data)
    if kinds not in (_KINDS, _EARLIER_KINDS):
        yield f"its members are {', '.join(kinds)}, not {', '.join(_KINDS)}"
    elif not task.quick:
        try:
            metadata = json.loads(data["json"])
            size = (int(metadata["width"]), int(metadata["height"]))
        except (ValueError, KeyError, TypeError):
            yield "json does not tell width and height"
            return
        short_side = task.data.split.short_side
        if min(size) != short_side:
            yield f"short side of {min(size)} pixels, not {short_side}"
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
