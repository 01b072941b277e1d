"""Resources of this process, cores and memory, and the name of the processor (no torch)."""

import ctypes
import math
import multiprocessing
import os
import platform
import re
import threading
from multiprocessing import connection
from pathlib import Path

from pix2pix.system.cores import affinity, cpu_quota


def num_cores() -> int:
    """Return the cores that this process may use, by affinity and quota, rounded up.

    Batch systems and containers often grant fewer than the machine has.
    """
    quota = cpu_quota()[1]
    granted = len(affinity())
    return granted if quota is None else max(1, min(granted, math.ceil(quota)))


def processor_name() -> str:
    """Return the processor as its maker names it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def keep_freed_memory() -> None:
    """Keep 64 MB of freed memory for the next picture, where malloc is glibc's.

    Otherwise a picture's megabytes may go back to the system when it is done, to come again a page
    at a time: 700 page faults, and a third of the time of a pair.
    """
    trim_threshold, mmap_threshold = -1, -3  # mallopt(3)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(trim_threshold, 64 * 2**20)
        mallopt(mmap_threshold, 32 * 2**20)  # the largest that it takes


def keep_all_freed_memory() -> None:
    """Keep all freed memory in this process, where malloc is glibc's.

    For a training on a CPU: each step frees and takes the same gigabytes, and a tenth of its time
    went into giving them back and getting them again, a page at a time.
    """
    trim_threshold, max_mmaps = -1, -4  # mallopt(3)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(max_mmaps, 0)
        mallopt(trim_threshold, 2**31 - 1)


def end_with_parent() -> None:
    """End this process, started by multiprocessing, when the one that started it has ended.

    A worker outlives a parent that was killed, waiting for work for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held so far (peak resident set)."""
    try:
        # Linux starts the count of getrusage at what the parent held when it started us.
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
