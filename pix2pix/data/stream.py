"""Batches decoded by worker processes, in order, on the device."""

import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pix2pix.data import loader_server
from pix2pix.data.batch_memory import BatchMemory, Bytes
from pix2pix.data.batches import Batch, NumberedBatches
from pix2pix.errors import StorageError, UserError

AHEAD = 4  # batches of each worker that may wait for the step
IN_USE = 4  # batches that the step and other callers may hold


class BatchStream:
    """Batches of a dataset in the given order, decoded by workers, on the device.

    A batch that can't be read does not raise in `next`: `broken` says why, and `next` returns that
    batch again and again, so that this rank can still take part in the collectives of a step until
    all ranks have agreed to stop. Everything that was computed since must be discarded.

    Args:
        batches: the dataset.
        numbers: which of its batches, in order.
        device: where they go.
        num_workers: processes that decode; 0 decodes in this one.
        look_ahead: number of batches that are fetched beyond the next one before `next` returns.
            If the file system of one of them does not answer, `storage_error` says so while the
            state is still good and can be saved.
    """

    def __init__(
        self,
        batches: NumberedBatches,
        numbers: Sequence[int],
        device: torch.device,
        num_workers: int,
        look_ahead: int = 0,
    ) -> None:
        self.device = device
        self.broken: str | None = None
        self.storage_error: str | None = None
        self._look_ahead = look_ahead
        self._fetched: deque[Batch] = deque()
        self._died: str | None = None
        self.seconds_waited = 0.0
        self._side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last: Batch | None = None
        self._length = len(numbers)
        dataset: Dataset[Any] = batches
        order: Iterable[Any] = numbers
        if num_workers and numbers:
            loader_server.start()
            slots = num_workers * AHEAD + IN_USE + look_ahead
            memory = BatchMemory(slots, batches.num_bytes(numbers[0]))
            dataset, order = _IntoMemory(batches, memory), memory.reserved(numbers)
        self._loader = DataLoader(
            dataset,
            batch_size=None,  # the dataset makes whole batches
            sampler=order,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=loader_server.start_worker,
            multiprocessing_context=loader_server.context if num_workers else None,
            prefetch_factor=AHEAD if num_workers else None,
        )
        self._batches: Iterator[Batch] | None = _without_interruptions(self._loader)

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(self, *error: object) -> None:
        # The workers end with their iterator. They ignore SIGTERM, so left to the interpreter's
        # exit they would be waited for in vain.
        self._batches = None
        self._fetched.clear()

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches in order; raises UserError or StorageError at one that can't be read."""
        for _ in range(self._length):
            batch = self.next()
            if self.broken:
                raise StorageError(self.broken) if batch.storage_failed else UserError(self.broken)
            yield batch

    def next(self) -> Batch:
        """Return the next batch on the device; once `broken`, the last one again."""
        if self.broken is None:
            self.fetch()
            if self._fetched:
                batch = self._fetched.popleft()
                self.broken = batch.broken
                self._last = self._to_device(batch)
            else:
                self.broken = self._died
        if self._last is None:
            raise UserError(self.broken or "there is no batch")
        return self._last

    def fetch(self) -> None:
        """Wait for the next batch and those to look ahead at."""
        started = time.perf_counter()
        try:
            while self._batches is not None and len(self._fetched) <= self._look_ahead:
                batch = next(self._batches)
                self._fetched.append(batch)
                if batch.storage_failed:
                    self.storage_error = self.storage_error or batch.broken
        except StopIteration:
            self._batches = None
        except (RuntimeError, EOFError, ConnectionError) as error:
            # Torch's words for a worker that died, by what it was just doing.
            self._batches = None
            self._died = (
                f"a loader worker died ({error or 'no message'}); often memory ran out: lower "
                "--num_workers and run the same command again"
            )
        self.seconds_waited += time.perf_counter() - started

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


class _IntoMemory(Dataset["_Sent"]):
    """Batches decoded into slots of `memory`, asked for by (number, slot)."""

    def __init__(self, batches: NumberedBatches, memory: BatchMemory) -> None:
        self.batches = batches
        self.memory = memory

    def __getitem__(self, place: tuple[int, int | None]) -> "_Sent":
        number, slot = place
        if slot is None:
            pixels = np.empty(self.batches.num_bytes(number), np.uint8)
        else:
            pixels = self.memory.pixels(slot)
        batch = self.batches.decode(number, pixels)
        return _Sent(self.memory.number, slot, pixels if slot is None else None, batch)


@dataclass(frozen=True)
class _Sent:
    """A batch on its way from a worker: it is pickled without its tensors, and a Batch arrives.

    memory, slot: where its pixels are.
    pixels: they themselves, where there was no slot because so many batches are kept: slow.
    """

    memory: int
    slot: int | None
    pixels: Bytes | None
    batch: Batch

    def __reduce__(self) -> tuple[object, ...]:
        batch = self.batch
        side, flip = batch.color.shape[-1], batch.flip.tolist()
        fields = (side, flip, batch.keys, batch.broken, batch.storage_failed)
        return _arrived, (self.memory, self.slot, self.pixels, *fields)


def _arrived(memory: int, slot: int | None, pixels: Bytes | None, *fields: Any) -> Batch:
    if slot is not None:
        pixels = BatchMemory.created_here(memory).open(slot)
    assert pixels is not None, "pixels travel where there is no slot"
    return Batch.view(pixels, *fields)
