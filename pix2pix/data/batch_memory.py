"""Memory in which loader workers hand over pixels, used again and again.

Fresh memory for each batch comes a page of 4 KB at a time: the faults took a fifth of the time.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import count
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_numbers = count()
_memories: "weakref.WeakValueDictionary[int, BatchMemory]" = weakref.WeakValueDictionary()


class BatchMemory:
    """`num_slots` slots of `slot_bytes` each, which workers get with the data that they start with.

    The memory has no name: nothing stays behind in /dev/shm, however a process ends, nor has that
    to be large (containers often have 64 MB). A page is taken when it is first written.

    A slot goes round: the trainer reserves it for a batch to come, a worker fills it, the trainer
    opens it, and it is free again when the last array or tensor that looks at it is gone.
    """

    def __init__(
        self, num_slots: int, slot_bytes: int, file: int | None = None, number: int | None = None
    ) -> None:
        """file, number: in a worker, those of the memory in the process that made it."""
        self.slot_bytes = slot_bytes
        self._num_slots = num_slots
        num_bytes = num_slots * slot_bytes
        self._file = _nameless_file(num_bytes) if file is None else file
        weakref.finalize(self, os.close, self._file)
        self._memory = mmap.mmap(self._file, num_bytes)
        self._free = list(range(num_slots))
        self._number = next(_numbers) if number is None else number
        if number is None:
            _memories[self._number] = self

    def __reduce__(self) -> tuple[object, ...]:
        if get_spawning_popen() is None:  # on the way back to the process that made it
            return _by_number, (self._number,)
        return _in_worker, (self._num_slots, self.slot_bytes, DupFd(self._file), self._number)

    def reserve(self) -> int | None:
        """A free slot, of those the one used last: its pages are there; None if all are in use."""
        return self._free.pop() if self._free else None

    def reserved(self, numbers: Iterable[int]) -> Iterator[tuple[int, int | None]]:
        """Each of `numbers` with a slot reserved when it is asked for."""
        return ((number, self.reserve()) for number in numbers)

    def pixels(self, slot: int) -> Bytes:
        """[slot_bytes], to be filled by a worker."""
        return np.frombuffer(self._memory, np.uint8, self.slot_bytes, slot * self.slot_bytes)

    def open(self, slot: int) -> Bytes:
        """[slot_bytes] as it was filled; the slot is free when this and all made of it are gone."""
        pixels = self.pixels(slot)
        # NumPy and torch keep this very array for as long as anything made of it is alive.
        weakref.finalize(pixels, self._free.append, slot).atexit = False
        return pixels


def _by_number(number: int) -> BatchMemory:
    return _memories[number]


def _in_worker(num_slots: int, slot_bytes: int, file: Any, number: int) -> BatchMemory:
    return BatchMemory(num_slots, slot_bytes, file.detach(), number)


def _nameless_file(num_bytes: int) -> int:
    """Descriptor of a file that is gone with its last user; in memory, where the system can."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("batches")
    else:
        with tempfile.TemporaryFile() as opened:
            file = os.dup(opened.fileno())
    os.ftruncate(file, num_bytes)
    return file
