"""Reads single samples out of tar shards: one `pread` at an offset that the shard's index knows."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from pix2pix.data.shards import ShardIndex, Split, index_shard
from pix2pix.errors import UserError
from pix2pix.system.reading import PatientFile, patiently

# A window holds 16 shards; at its edge two windows are read, with room to spare.
OPEN_SHARDS = 64


class ShardReader:
    """Reads single samples out of a split's tar shards."""

    def __init__(self, root: Path, split: Split) -> None:
        self.root = root
        self.split = split
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    def __getstate__(self) -> tuple[Path, Split]:
        return self.root, self.split  # a worker opens its own files

    def __setstate__(self, state: tuple[Path, Split]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def name(self, shard: int, index: int) -> str:
        """ "SHARD/KEY" of one sample."""
        return f"{self.split.shards[shard].name}/{self._open(shard)[1].keys[index]}"

    def source(self, shard: int, index: int) -> tuple[str, str]:
        """Name "SHARD/KEY" of one sample and the photograph it was made of; "" if nobody knows."""
        file, table = self._open(shard)
        offset, size = table.metadata[index].tolist()
        try:
            metadata = json.loads(file.pread(size, offset) or b"{}")
            return self.name(shard, index), str(metadata.get("source", ""))
        except (OSError, ValueError, AttributeError):  # StorageError is a ValueError
            return self.name(shard, index), ""

    def read(self, shard: int, index: int) -> tuple[str, Tensor, Tensor]:
        """Name "SHARD/KEY", gray [1, H, W] and color [3, H, W] uint8 of one sample.

        Raises StorageError where the disk does not answer, and UserError, naming shard and key,
        where what it read does not decode.
        """
        file, table = self._open(shard)
        name = self.name(shard, index)
        try:
            gray = _decode(file, table.gray[index], ImageReadMode.GRAY)
            color = _decode(file, table.color[index], ImageReadMode.RGB)
        except OSError as error:
            raise UserError(f"can't read sample {name}: {error.strerror}") from error
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"broken sample {name} ({reason}); run make_shards again, or "
                f"`python -m data_prep.verify_shards --shards {self.root}` to see what else is"
            ) from error
        if gray.shape[1:] != color.shape[1:]:
            raise UserError(f"broken sample {name}: gray and color differ in size")
        return name, gray, color

    def _open_shard(self, shard: int) -> tuple[PatientFile, ShardIndex]:
        path = self.root / self.split.shards[shard].name
        try:
            return PatientFile(path), patiently(lambda: index_shard(path), path)
        except OSError as error:
            raise UserError(f"can't read shard {path}: {error.strerror}") from error


def _decode(file: PatientFile, place: NDArray[np.int64], mode: ImageReadMode) -> Tensor:
    offset, size = place.tolist()
    data = bytearray(file.pread(size, offset))
    if len(data) < size:
        raise RuntimeError("the shard ends before its end")
    return decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=mode)
