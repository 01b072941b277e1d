"""Shards + order → numbered batches, and what a network sees of one.

The order of samples is arithmetic (order.py) and a sample is read by itself (reader.py), so there
is no state: asked for step s it gives step s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from pix2pix.config import TrainConfig
from pix2pix.data.batch_memory import Bytes
from pix2pix.data.order import SampleOrder, micro_batch_positions, samples_at, uniforms
from pix2pix.data.preflight import crop_size
from pix2pix.data.reader import ShardReader
from pix2pix.errors import StorageError, UserError
from pix2pix.model.color import ColorSpace


@dataclass(frozen=True)
class Batch:
    """Photographs as they lie in the shards: uint8, all cropped to the same square of side C.

    gray: [B, 1, C, C] and color: [B, 3, C, C], uint8 (color in channels-last memory);
    flip: [B] bool, mirror this one; keys: [B] names, "SHARD/KEY".
    broken: why the batch could not be read, naming shard and key; its pixels then mean nothing.
    storage_failed: its file system did not answer, and no photograph is to blame.
    """

    gray: Tensor
    color: Tensor
    flip: Tensor
    keys: tuple[str, ...]
    broken: str | None = None
    storage_failed: bool = False

    @classmethod
    def view(
        cls,
        pixels: Bytes,
        side: int,
        flip: Sequence[bool],
        keys: tuple[str, ...],
        broken: str | None,
        storage_failed: bool = False,
    ) -> "Batch":
        """Return a batch whose pixels lie in the flat array `pixels`, all gray ones first."""
        gray, color = (
            torch.from_numpy(half).permute(0, 3, 1, 2) for half in _squares(pixels, len(flip), side)
        )
        return cls(gray, color, torch.tensor(flip), keys, broken, storage_failed)

    @classmethod
    def blank(cls, size: int, side: int) -> "Batch":
        """Return black photographs, for a pass that is made only for its side effects."""
        pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        return cls(pixels[:, :1], pixels, torch.zeros(size, dtype=torch.bool), ("",) * size)

    def pin_memory(self) -> "Batch":
        """Pin the pixels, as the DataLoader asks: copies to a GPU need that not to block."""
        return self._moved(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`; a copy from pinned memory does not block."""
        return self._moved(partial(Tensor.to, device=device, non_blocking=True))

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        gray, color, flip = move(self.gray), move(self.color), move(self.flip)
        return replace(self, gray=gray, color=color, flip=flip)


def training_view(batch: Batch, color_space: ColorSpace, image_size: int) -> tuple[Tensor, Tensor]:
    """Return condition [B, Cin, S, S] and target [B, Cout, S, S] in [-1, 1], S = image_size.

    Flip and resize, the same for gray and color, and the conversion of the color space: all on
    the batch's device.
    """
    flip = batch.flip.view(-1, 1, 1, 1)
    gray, color = (
        resize(torch.where(flip, pixels.flip(-1), pixels), image_size)
        for pixels in (batch.gray, batch.color)
    )
    condition, target = color_space.condition(gray), color_space.target(color)
    return (
        condition.contiguous(memory_format=torch.channels_last),
        target.contiguous(memory_format=torch.channels_last),
    )


def resize(pixels: Tensor, size: int) -> Tensor:
    """Resize uint8 [B, C, H, W] to [B, C, size, size], bilinear with antialiasing."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    resized = interpolate(
        pixels.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Crop:
    """A sample and the square to crop from it: top and left in [0, 1], mirrored if flip ≥ 0.5."""

    shard: int
    index: int
    top: float
    left: float
    flip: float


class NumberedBatches(Dataset[Batch]):
    """Numbered batches of samples, cropped to squares of `side`; each is read when asked for."""

    reader: ShardReader
    side: int

    def crops(self, number: int) -> list[Crop]:
        """Return the samples of batch `number` and how each is cropped; reads nothing."""
        raise NotImplementedError

    def square_side(self, shard: int) -> int:
        """Return the side of the squares that are cropped from a shard's pictures."""
        raise NotImplementedError

    def num_bytes(self, number: int) -> int:
        """Return the bytes of the pixels of batch `number`."""
        return len(self.crops(number)) * self.side**2 * 4

    def __getitem__(self, number: int) -> Batch:
        """Decode batch `number` (reads shards)."""
        return self.decode(number, np.empty(self.num_bytes(number), np.uint8))

    def decode(self, number: int, pixels: Bytes) -> Batch:
        """Return the same with its pixels in the flat array `pixels`, which may be longer."""
        crops = self.crops(number)
        keys: list[str] = []
        broken, storage_failed = None, False
        gray, color = _squares(pixels, len(crops), self.side)
        try:
            self.reader.look_up(crop.shard for crop in crops)
            for row, crop in enumerate(crops):
                keys.append(self._read(crop, gray[row], color[row]))
        except UserError as error:
            broken, storage_failed = str(error), isinstance(error, StorageError)
        flip = [crop.flip >= 0.5 for crop in crops]
        return Batch.view(pixels, self.side, flip, tuple(keys), broken, storage_failed)

    def _read(self, crop: Crop, gray: Bytes, color: Bytes) -> str:
        """Decode a sample into gray [S, S, 1] and color [S, S, 3]; return its name."""
        side = self.square_side(crop.shard)
        key, *squares = self.reader.square(crop.shard, crop.index, side, crop.top, crop.left)
        for target, square in zip((gray, color), squares, strict=True):
            target[:] = square if side == self.side else _resized(square, self.side)
        return key


def common_side(sides: Sequence[int], image_size: int) -> int:
    """Return the side of a batch's squares, given that of each data set.

    Where they differ, workers reduce each to `image_size`, once; else the device does.
    """
    return sides[0] if len(set(sides)) == 1 else image_size


def train_side(reader: ShardReader) -> int:
    """Return the side of a training's batches."""
    return common_side([crop_size(side) for side in reader.short_sides], reader.image_size)


def _resized(square: Bytes, side: int) -> Bytes:
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)
    return resize(pixels[None], side)[0].permute(1, 2, 0).numpy()


def _squares(pixels: Bytes, number: int, side: int) -> tuple[Bytes, Bytes]:
    """Return gray [number, side, side, 1] and color [number, side, side, 3] in `pixels`."""
    split, end = number * side**2, number * side**2 * 4
    return (
        pixels[:split].reshape(number, side, side, 1),
        pixels[split:end].reshape(number, side, side, 3),
    )


class TrainMicroBatches(NumberedBatches):
    """Micro-batch number i of this rank, counted from the start of the training."""

    def __init__(self, reader: ShardReader, config: TrainConfig, rank: int, world_size: int):
        self.reader = reader
        self.config = config
        self.rank = rank
        self.world_size = world_size
        self.entries = weighted_shards(reader.weights)
        self.order = training_order(reader, config)
        self.side = train_side(reader)

    def square_side(self, shard: int) -> int:
        """Return the side of the training crop of a shard's pictures."""
        return crop_size(self.reader.short_side(shard))

    def crops(self, number: int) -> list[Crop]:
        """Return the samples of micro-batch `number` and how each is cropped and mirrored."""
        num_micro_batches = self.config.grad_accumulation_steps
        step, micro_batch = divmod(number, num_micro_batches)
        positions = micro_batch_positions(
            step,
            self.rank,
            self.world_size,
            micro_batch,
            num_micro_batches,
            self.config.global_batch,
        )
        samples = self.order.samples(positions)
        rows = zip(
            samples.epoch.tolist(), samples.shard.tolist(), samples.index.tolist(), strict=True
        )
        return [self._crop(epoch, entry, index) for epoch, entry, index in rows]

    def _crop(self, epoch: int, entry: int, index: int) -> Crop:
        shard, repeat = self.entries[entry]
        key = (self.config.seed, epoch, shard, index, *([repeat] if repeat else []))
        return Crop(shard, index, *uniforms(3, "augment", *key))


def weighted_shards(weights: Sequence[int]) -> list[tuple[int, int]]:
    """Return (shard, repeat) of each entry of the list that the order permutes; repeats last."""
    repeats = range(max(weights, default=1))
    return [
        (shard, repeat)
        for repeat in repeats
        for shard, weight in enumerate(weights)
        if repeat < weight
    ]


def training_order(reader: ShardReader, config: TrainConfig) -> SampleOrder:
    """Return the order of a training: of the entries of `weighted_shards`."""
    counts = reader.sample_counts
    entries = [counts[shard] for shard, _ in weighted_shards(reader.weights)]
    return SampleOrder(entries, config.seed, config.window_shards)


def global_batch_keys(reader: ShardReader, config: TrainConfig, step: int) -> list[str]:
    """Return "SHARD/KEY" of the samples of step `step` (from 0), over all ranks."""
    num_micro_batches = config.grad_accumulation_steps
    micro_batches = TrainMicroBatches(reader, config, rank=0, world_size=1)
    numbers = range(step * num_micro_batches, (step + 1) * num_micro_batches)
    crops = (crop for number in numbers for crop in micro_batches.crops(number))
    return [reader.name(crop.shard, crop.index) for crop in crops]


class EvaluationBatches(NumberedBatches):
    """This rank's samples of a split as center squares, `batch_size` at a time.

    In manifest order, strided over ranks, never padded. of: which of the split's samples are
    shared among the ranks, [N] positions in that order; None: all.
    """

    def __init__(
        self,
        reader: ShardReader,
        rank: int,
        world_size: int,
        batch_size: int,
        of: NDArray[np.int64] | None = None,
    ):
        self.reader = reader
        self.side = common_side(reader.short_sides, reader.image_size)
        self.batch_size = batch_size
        everything = np.arange(reader.num_samples) if of is None else of
        self.positions = everything[rank::world_size]
        self.mine = samples_at(reader.sample_counts, self.positions)

    def square_side(self, shard: int) -> int:
        """Return the side of the center square: the short side."""
        return self.reader.short_side(shard)

    def __len__(self) -> int:
        """Return number of batches; the last may be smaller."""
        return -(-len(self.mine.shard) // self.batch_size)

    def crops(self, number: int) -> list[Crop]:
        """Return the samples of batch `number`; each is cropped at its center."""
        rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
        places = zip(self.mine.shard[rows].tolist(), self.mine.index[rows].tolist(), strict=True)
        return [Crop(shard, index, top=0.5, left=0.5, flip=0.0) for shard, index in places]
