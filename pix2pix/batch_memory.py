"""Memory in which loader workers hand over pixels, used again and again.

Fresh memory for each batch comes a page of 4 KB at a time: the faults took a fifth of the time.
"""

import mmap
import weakref
from collections.abc import Iterable, Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_numbers = count()
_memories: "weakref.WeakValueDictionary[int, BatchMemory]" = weakref.WeakValueDictionary()


class BatchMemory:
    """Slots of `slot_bytes` each, made before the workers fork.

    The memory has no name: nothing stays behind in /dev/shm, however a process ends, nor has that
    to be large (containers often have 64 MB). A page is taken when it is first written.

    A slot goes round: the trainer reserves it for a batch to come, a worker fills it, the trainer
    opens it, and it is free again when the last array or tensor that looks at it is gone.
    """

    def __init__(self, num_slots: int, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self._memory = mmap.mmap(-1, num_slots * slot_bytes)
        self._free = list(range(num_slots))
        self._number = next(_numbers)
        _memories[self._number] = self

    def __reduce__(self) -> tuple[object, ...]:
        return _by_number, (self._number,)  # the same memory, in the process that made it

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
