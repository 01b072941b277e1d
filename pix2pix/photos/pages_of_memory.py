"""Gives parts of an array back to the system, while the rest of it is still read.

A picture is decoded whole and sent on in strips: it would be in memory twice at the end.
"""

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import numpy as np


def forget(rows: np.ndarray) -> None:
    """Give back the memory of rows that nobody reads again; they hold anything afterwards.

    Does nothing where the array does not own its memory alone, or where the system is no Linux.
    """
    whole = rows if rows.base is None else rows.base
    madvise = _madvise()
    if madvise is None or not isinstance(whole, np.ndarray) or not whole.flags.owndata:
        return
    if not rows.flags.c_contiguous:
        return
    first, end = rows.ctypes.data, rows.ctypes.data + rows.nbytes
    start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    size = end // mmap.PAGESIZE * mmap.PAGESIZE - start
    if size > 0:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


@cache
def _madvise() -> Any:
    return getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
