"""Reads single samples out of tar shards: one `pread` at an offset that the shard's index knows."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from pix2pix.data.index import ShardIndex, index_shard
from pix2pix.data.shards import Split
from pix2pix.errors import UserError

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
        return f"{self.split.shards[shard].name}/{self._open(shard)[1].key(index)}"

    def source(self, shard: int, index: int) -> tuple[str, str]:
        """Name "SHARD/KEY" of one sample and the photograph it was made of; "" if nobody knows."""
        file, table = self._open(shard)
        offset, size = table.place("metadata", index)
        try:
            metadata = json.loads(os.pread(file.fileno(), size, offset) or b"{}")
            return self.name(shard, index), str(metadata.get("source", ""))
        except (OSError, ValueError, AttributeError):
            return self.name(shard, index), ""

    def read(self, shard: int, index: int) -> tuple[str, Tensor, Tensor]:
        """Name "SHARD/KEY", gray [1, H, W] and color [3, H, W] uint8 of one sample.

        Raises UserError, naming shard and key, where the sample can't be read or decoded.
        """
        file, table = self._open(shard)
        name = self.name(shard, index)
        try:
            gray = _decode(file.fileno(), table.place("gray", index), ImageReadMode.GRAY)
            color = _decode(file.fileno(), table.place("color", index), ImageReadMode.RGB)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"broken sample {name} ({reason}); run make_shards again, or "
                f"`python -m data_prep.verify_shards --shards {self.root}` to see what else is"
            ) from error
        if gray.shape[1:] != color.shape[1:]:
            raise UserError(f"broken sample {name}: gray and color differ in size")
        return name, gray, color

    def _open_shard(self, shard: int) -> tuple[BinaryIO, ShardIndex]:
        path = self.root / self.split.shards[shard].name
        try:
            return path.open("rb"), index_shard(path)
        except OSError as error:
            raise UserError(f"can't read shard {path}: {error.strerror}") from error


def _decode(descriptor: int, place: tuple[int, int], mode: ImageReadMode) -> Tensor:
    offset, size = place
    data = bytearray(os.pread(descriptor, size, offset))
    return decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=mode)
