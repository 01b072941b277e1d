"""Shards + order → batches on the device.

The order of samples is arithmetic (order.py) and a sample is read by itself (reader.py), so a
loader has no state: asked for step s it gives step s.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from pix2pix.color import ColorSpace
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.order import SampleOrder, samples_at, slice_positions, uniforms
from pix2pix.preflight import crop_size
from pix2pix.reader import ShardReader


@dataclass(frozen=True)
class Batch:
    """Photographs as they lie in the shards: uint8, all cut to the same square of side C.

    gray: [B, 1, C, C] and color: [B, 3, C, C], uint8 (color in channels-last memory);
    flip: [B] bool, mirror this one; keys: [B] names, "SHARD/KEY".
    broken: why the batch could not be read, naming shard and key; its pixels then mean nothing.
    """

    gray: Tensor
    color: Tensor
    flip: Tensor
    keys: tuple[str, ...]
    broken: str | None = None

    @classmethod
    def blank(cls, size: int, side: int) -> "Batch":
        """Black photographs: what a pass needs that is made only for its side effects."""
        pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        return cls(pixels[:, :1], pixels, torch.zeros(size, dtype=torch.bool), ("",) * size)

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader: copies to a GPU need pinned memory not to block."""
        return self._moved(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`; a copy from pinned memory does not block."""
        return self._moved(partial(Tensor.to, device=device, non_blocking=True))

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        gray, color, flip = move(self.gray), move(self.color), move(self.flip)
        return replace(self, gray=gray, color=color, flip=flip)


def training_view(batch: Batch, color_space: ColorSpace, image_size: int) -> tuple[Tensor, Tensor]:
    """Condition [B, Cin, S, S] and target [B, Cout, S, S] in [-1, 1], S = image_size.

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
    """uint8 [B, C, H, W] → uint8 [B, C, size, size], bilinear with antialiasing."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    resized = interpolate(
        pixels.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Cut:
    """A sample and the square to cut from it: top and left in [0, 1], mirrored if flip ≥ 0.5."""

    shard: int
    index: int
    top: float
    left: float
    flip: float


class TrainSlices(Dataset[Batch]):
    """Accumulation slice number i of this rank, counted from the start of the training."""

    def __init__(self, reader: ShardReader, config: TrainConfig, rank: int, world_size: int):
        self.reader = reader
        self.config = config
        self.rank = rank
        self.world_size = world_size
        counts = reader.split.sample_counts
        self.order = SampleOrder(counts, config.seed, config.window_shards)
        self.side = crop_size(reader.split.short_side)

    def cuts(self, number: int) -> list[Cut]:
        """Which samples slice `number` holds and how each is cut and mirrored; reads nothing."""
        parts = self.config.grad_accumulation_steps
        step, part = divmod(number, parts)
        positions = slice_positions(
            step, self.rank, self.world_size, part, parts, self.config.global_batch
        )
        samples = self.order.samples(positions)
        rows = zip(
            samples.epoch.tolist(), samples.shard.tolist(), samples.index.tolist(), strict=True
        )
        return [
            Cut(shard, index, *uniforms(3, "augment", self.config.seed, epoch, shard, index))
            for epoch, shard, index in rows
        ]

    def __getitem__(self, number: int) -> Batch:
        """Decode slice `number` (reads shards)."""
        return _read_batch(self.reader, self.cuts(number), self.side)


def global_batch_keys(reader: ShardReader, config: TrainConfig, step: int) -> list[str]:
    """Names "SHARD/KEY" of the samples of step `step` (from 0), over all ranks."""
    parts = config.grad_accumulation_steps
    slices = TrainSlices(reader, config, rank=0, world_size=1)
    cuts = (cut for part in range(parts) for cut in slices.cuts(step * parts + part))
    return [reader.name(cut.shard, cut.index) for cut in cuts]


class EvaluationBatches(Dataset[Batch]):
    """This rank's samples of a split as centre squares, `batch_size` at a time.

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
        self.batch_size = batch_size
        everything = np.arange(reader.split.num_samples) if of is None else of
        self.positions = everything[rank::world_size]
        self.mine = samples_at(reader.split.sample_counts, self.positions)

    def __len__(self) -> int:
        """Number of batches; the last may be smaller."""
        return -(-len(self.mine.shard) // self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        """Decode batch `number` (reads shards)."""
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        places = zip(self.mine.shard[part].tolist(), self.mine.index[part].tolist(), strict=True)
        cuts = [Cut(shard, index, top=0.5, left=0.5, flip=0.0) for shard, index in places]
        return _read_batch(self.reader, cuts, self.reader.split.short_side)


def _read_batch(reader: ShardReader, cuts: list[Cut], side: int) -> Batch:
    """Decode each sample and write its square into the batch, allocated once."""
    gray = torch.empty(len(cuts), side, side, 1, dtype=torch.uint8)
    color = torch.empty(len(cuts), side, side, 3, dtype=torch.uint8)
    keys: list[str] = []
    broken = None
    try:
        for row, cut in enumerate(cuts):
            key, gray_pixels, color_pixels = reader.read(cut.shard, cut.index)
            height, width = gray_pixels.shape[1:]
            y, x = round(cut.top * (height - side)), round(cut.left * (width - side))
            if y < 0 or x < 0:
                raise UserError(f"broken sample {key}: {width}×{height} px, side {side} expected")
            square = np.s_[:, y : y + side, x : x + side]
            gray[row] = gray_pixels[square].permute(1, 2, 0)
            color[row] = color_pixels[square].permute(1, 2, 0)
            keys.append(key)
    except UserError as error:
        broken = str(error)
    flip = torch.tensor([cut.flip >= 0.5 for cut in cuts])
    return Batch(gray.permute(0, 3, 1, 2), color.permute(0, 3, 1, 2), flip, tuple(keys), broken)


class BatchStream:
    """Batches of a dataset in the given order, decoded by workers, on the device.

    A batch that can't be read does not raise in `next`: `broken` then says why, and that batch
    comes again and again, so that this rank can still take part in the collectives of a step until
    all ranks have agreed to stop. What was computed since must be thrown away.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        numbers: Iterable[int],
        device: torch.device,
        num_workers: int,
    ) -> None:
        self.device = device
        self.broken: str | None = None
        self.seconds_waited = 0.0
        self._side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last: Batch | None = None
        self._loader = DataLoader(
            dataset,
            batch_size=None,  # the dataset makes whole batches
            sampler=numbers,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_trainer,
            prefetch_factor=4 if num_workers else None,
        )
        self._batches: Iterator[Batch] | None = _without_interruptions(self._loader)

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(self, *error: object) -> None:
        # The workers end with their iterator. They ignore SIGTERM, so left to the interpreter's
        # exit they would be waited for in vain.
        self._batches = None

    def __iter__(self) -> Iterator[Batch]:
        """Every batch, in order; raises UserError at one that can't be read."""
        for _ in range(len(self._loader)):
            batch = self.next()
            if self.broken:
                raise UserError(self.broken)
            yield batch

    def next(self) -> Batch:
        """The next batch on the device; once `broken`, the last one again."""
        if self.broken is None and self._batches is not None:
            started = time.perf_counter()
            try:
                batch = next(self._batches)
            except (RuntimeError, EOFError, ConnectionError) as error:
                # Torch's words for a worker that died, by what it was just doing.
                self.broken = (
                    f"a loader worker died ({error or 'no message'}); often memory ran out: lower "
                    "--num_workers and run the same command again"
                )
            else:
                self.broken = batch.broken
                self._last = self._to_device(batch)
            self.seconds_waited += time.perf_counter() - started
        if self._last is None:
            raise UserError(self.broken or "there is no batch")
        return self._last

    def _to_device(self, batch: Batch) -> Batch:
        if self._side_stream is None:
            return batch.to(self.device)
        # On a stream of its own the copy overlaps the step that is still computing.
        with torch.cuda.stream(self._side_stream):
            batch = batch.to(self.device)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._side_stream)
        for tensor in (batch.gray, batch.color, batch.flip):
            tensor.record_stream(current)
        return batch


def _without_interruptions(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Start the workers, but let a dead one be an error of `next` only.

    torch would raise it out of a SIGCHLD handler, anywhere in the midst of a step.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    return batches


def _leave_signals_to_the_trainer(worker: int) -> None:
    # Ctrl-C and schedulers signal every process of a job: a worker that died of it would break
    # the very step after which the trainer wants to save. Workers end when the trainer does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
