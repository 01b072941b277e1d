"""Shared memory for the pixels of loader workers, reused for all batches.

Fresh memory for each batch would be mapped in pages of 4 KB: the faults took a fifth of the time.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import count
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_numbers = count()
_memories: "weakref.WeakValueDictionary[int, BatchMemory]" = weakref.WeakValueDictionary()


class BatchMemory:
    """`num_slots` slots of `slot_bytes` each, which workers receive when they start.

    The memory has no name: no process leaves anything in /dev/shm, which need not be large
    (containers often have 64 MB). A page is allocated when it is first written.

    The trainer reserves a slot for a future batch, a worker fills it, and the trainer opens it. The
    slot is free again when the last array or tensor that views it is gone.

    Attributes:
        number: names this memory among those of the process that created it.
    """

    def __init__(
        self, num_slots: int, slot_bytes: int, file: int | None = None, number: int | None = None
    ) -> None:
        """Create the memory.

        Args:
            num_slots: number of slots.
            slot_bytes: size of a slot.
            file: in a worker, the descriptor of the trainer's memory.
            number: in a worker, the number of the trainer's memory.
        """
        self.slot_bytes = slot_bytes
        self._num_slots = num_slots
        num_bytes = num_slots * slot_bytes
        self._file = _nameless_file(num_bytes) if file is None else file
        weakref.finalize(self, os.close, self._file)
        self._memory = mmap.mmap(self._file, num_bytes)
        self._free = list(range(num_slots))
        self.number = next(_numbers) if number is None else number
        if number is None:
            _memories[self.number] = self

    @staticmethod
    def created_here(number: int) -> "BatchMemory":
        """Return the memory of that number that this process created."""
        return _memories[number]

    def __reduce__(self) -> tuple[object, ...]:
        # Only a starting worker receives the memory itself; the way back is by its number.
        return _in_worker, (self._num_slots, self.slot_bytes, DupFd(self._file), self.number)

    def reserve(self) -> int | None:
        """Return the free slot used last, whose pages are mapped, or None if all are in use."""
        return self._free.pop() if self._free else None

    def reserved(self, numbers: Iterable[int]) -> Iterator[tuple[int, int | None]]:
        """Yield each of `numbers` with a slot, reserved at that moment."""
        return ((number, self.reserve()) for number in numbers)

    def pixels(self, slot: int) -> Bytes:
        """Return the slot as an array [slot_bytes] for a worker to fill."""
        return np.frombuffer(self._memory, np.uint8, self.slot_bytes, slot * self.slot_bytes)

    def open(self, slot: int) -> Bytes:
        """Return a filled slot, [slot_bytes]; it is free when this and all views are gone."""
        pixels = self.pixels(slot)
        # NumPy and torch keep a reference to this array as long as a view of it is alive.
        weakref.finalize(pixels, self._free.append, slot).atexit = False
        return pixels


def _in_worker(num_slots: int, slot_bytes: int, file: Any, number: int) -> BatchMemory:
    return BatchMemory(num_slots, slot_bytes, file.detach(), number)


def _nameless_file(num_bytes: int) -> int:
    """Return the descriptor of an unnamed file, in memory if the system supports it."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("batches")
    else:
        with tempfile.TemporaryFile() as opened:
            file = os.dup(opened.fileno())
    os.ftruncate(file, num_bytes)
    return file
