"""Files mapped into memory, without an open descriptor for each (no torch)."""

import ctypes
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

_FAILED = ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64),
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def map_file(path: str | Path) -> memoryview:
    """Return the bytes of a file, to be read only; all processes that map it share them.

    Python's `mmap` keeps a descriptor of its own for as long as the bytes are used (before 3.13),
    and a process may have no more than 1,024 on most systems. Raises OSError, and ValueError for an
    empty file. The file must not be cut short while it is mapped.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if not size:
            raise ValueError("an empty file")
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address in (None, _FAILED):  # Linux maps no more than 65,530 pieces: then it is read
            return memoryview(os.pread(descriptor, size, 0))
        return np.asarray(_Mapped(address, size)).data
    finally:
        os.close(descriptor)


class _Mapped:
    """The owner of a mapping: it ends with the last array that looks into it."""

    def __init__(self, address: int, size: int) -> None:
        self._place = address, size

    @property
    def __array_interface__(self) -> dict[str, Any]:
        address, size = self._place
        return {"data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self, munmap: Any = _libc.munmap) -> None:
        munmap(*self._place)
