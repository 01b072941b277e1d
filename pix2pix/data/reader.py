"""Reads single samples out of tar shards: one `pread` at an offset that the shard's index knows."""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from pix2pix.data.data_set import DataSet, digest_of
from pix2pix.data.index import ShardIndex
from pix2pix.data.shards import Shard
from pix2pix.errors import UserError
from pix2pix.photos.photo_error import PhotoError
from pix2pix.system.reading import PatientFile, patiently

# Fewer than most systems let a process open (1,024). To open one again takes 10 µs here, and on a
# shared file system a question to its server; an index stays for good.
OPEN_FILES = 512
# Of shards in a cache: one that leaves it holds its room until it is closed. About a window.
OPEN_CACHED = 16
_OPEN_TRIES = 10  # of a cache so small that its shards leave as soon as they are there

Square = NDArray[np.uint8]  # [side, side, 1 or 3]


class ShardReader:
    """Reads single samples out of the shards of one data set, or of several one after the other.

    Shards are numbered through all data sets, samples within their shard.
    image_size: what a training or an evaluation makes of the squares, pixels.
    """

    def __init__(self, data_sets: Sequence[DataSet], image_size: int) -> None:
        self.data_sets = tuple(data_sets)
        self.image_size = image_size
        self.shards = [(data, shard) for data in self.data_sets for shard in data.split.shards]
        self._indexes: dict[int, ShardIndex] = {}
        self._paths: dict[int, str | None] = {}  # None: of the cache
        self._files = _OpenFiles(OPEN_FILES)
        self._cached: dict[int, PatientFile] = {}  # the one used last is the last

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_indexes": {}, "_cached": {}}  # files are of one process

    @property
    def sample_counts(self) -> tuple[int, ...]:
        """Samples of each shard."""
        return tuple(shard.num_samples for _, shard in self.shards)

    @property
    def num_samples(self) -> int:
        """Samples of all shards together, whatever their weights."""
        return sum(self.sample_counts)

    @property
    def short_sides(self) -> tuple[int, ...]:
        """Short side of each data set's pictures, in pixels."""
        return tuple(data.split.short_side for data in self.data_sets)

    @property
    def weights(self) -> tuple[int, ...]:
        """How often the samples of each shard are seen in an epoch."""
        return tuple(data.weight for data, _ in self.shards)

    @property
    def digest(self) -> str:
        """Identity of the content, wherever it lies."""
        return digest_of(self.data_sets)

    def short_side(self, shard: int) -> int:
        """Return the short side of the pictures in a shard, in pixels."""
        return self.shards[shard][0].split.short_side

    def look_up(self, shards: Iterable[int]) -> None:
        """Open the indexes of some shards, those of a batch say.

        One after the other they take half the time that they take between pictures, whose decoding
        leaves the processor's caches with nothing of what opens an index. Raises UserError.
        """
        for shard in shards:
            self._index(shard)

    def name(self, shard: int, sample: int) -> str:
        """Return "SHARD/KEY" of one sample."""
        return f"{self.shards[shard][1].name}/{self._index(shard).key(sample)}"

    def source(self, shard: int, sample: int) -> tuple[str, str]:
        """Return "SHARD/KEY" of one sample and the photograph it was made of, "" if unknown."""
        try:
            metadata = json.loads(self._bytes(shard, "metadata", sample) or b"{}")
            return self.name(shard, sample), str(metadata.get("source", ""))
        except (OSError, ValueError, AttributeError):
            return self.name(shard, sample), ""

    def square(
        self, shard: int, sample: int, side: int, top: float, left: float
    ) -> tuple[str, Square, Square]:
        """Return "SHARD/KEY", gray [side, side, 1] and color [side, side, 3] of one sample.

        The square of `side` pixels in the picture reduced to the shard's short side, `top` and
        `left` in [0, 1] of the way. Raises UserError, naming shard and key, where the sample can't
        be read or decoded.
        """
        data, _ = self.shards[shard]
        name = self.name(shard, sample)
        try:
            if data.split.kind == "pictures":
                from pix2pix.photos.resize import open_square  # files of every kind: 30 modules

                picture = self._bytes(shard, "picture", sample)
                return name, *open_square(picture, data.split.short_side, side, top, left)
            gray, color = self._pair(shard, sample)
        except (OSError, RuntimeError, PhotoError) as error:
            made = "index_shards" if data.split.kind == "pictures" else "make_shards"
            raise UserError(
                f"broken sample {name} ({str(error).splitlines()[0]}); run {made} again, or "
                f"`python -m data_prep.verify_shards --shards {data.root}` to see what else is"
            ) from error
        height, width = gray.shape[1:]
        if color.shape[1:] != gray.shape[1:]:
            raise UserError(f"broken sample {name}: gray and color differ in size")
        y, x = round(top * (height - side)), round(left * (width - side))
        if y < 0 or x < 0:
            raise UserError(f"broken sample {name}: {width}×{height} px, side {side} expected")
        rows, columns = slice(y, y + side), slice(x, x + side)
        gray_square, color_square = (
            picture.permute(1, 2, 0).numpy()[rows, columns] for picture in (gray, color)
        )
        return name, gray_square, color_square

    def _pair(self, shard: int, sample: int) -> tuple[Tensor, Tensor]:
        """Return gray [1, H, W] and color [3, H, W], uint8."""
        modes = {"gray": ImageReadMode.GRAY, "color": ImageReadMode.RGB}
        gray, color = (
            decode_jpeg(
                torch.frombuffer(bytearray(self._bytes(shard, member, sample)), dtype=torch.uint8),
                mode,
            )
            for member, mode in modes.items()
        )
        return gray, color

    def _bytes(self, shard: int, member: str, sample: int) -> bytes:
        offset, size = self._index(shard).place(member, sample)
        data = self._file(shard).pread(size, offset)
        if len(data) < size:
            raise RuntimeError("the shard ends before its end")
        return data

    def _file(self, shard: int) -> PatientFile:
        data, entry = self.shards[shard]
        path = self._path(shard)
        if path is not None:
            return self._files.open(path)
        file = self._cached.pop(shard, None) or _open_cached(data, entry)
        self._cached[shard] = file
        if len(self._cached) > OPEN_CACHED:
            self._cached.pop(next(iter(self._cached))).close()
        return file

    def _path(self, shard: int) -> str | None:
        if shard not in self._paths:
            data, entry = self.shards[shard]
            self._paths[shard] = data.local_tar(entry)
        return self._paths[shard]

    def _index(self, shard: int) -> ShardIndex:
        if shard not in self._indexes:
            data, entry = self.shards[shard]
            place = self._path(shard) or data.place(entry)
            self._indexes[shard] = patiently(lambda: data.index(entry), place)
        return self._indexes[shard]


class _OpenFiles:
    """The `most` files opened last, kept open; in another process, none of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = lru_cache(maxsize=most)(_open)

    def __reduce__(self) -> tuple[object, ...]:
        return _OpenFiles, (self.most,)


def _open(path: str | Path) -> PatientFile:
    try:
        return PatientFile(path)
    except OSError as error:
        raise UserError(f"can't read shard {path}: {error.strerror}") from error


def _open_cached(data: DataSet, shard: Shard) -> PatientFile:
    """Open a shard in the cache; if this process had to fetch it, others make room."""
    cache = data.cache
    assert cache is not None, "what is cached has a cache"
    for _ in range(_OPEN_TRIES):
        try:
            file = PatientFile(data.tar(shard))
        except FileNotFoundError:  # another process made room for its own
            continue
        except OSError as error:
            raise UserError(f"can't read shard {cache.path(shard)}: {error.strerror}") from error
        cache.trim(shard)
        return file
    raise UserError(
        f"the cache {cache.folder} is too small: what it fetches is removed at once for something "
        "else; raise --shards_cache_gib"
    )
