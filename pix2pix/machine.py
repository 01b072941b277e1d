"""What this process may use of the machine, and what the machine is (no torch)."""

import os
import platform
import re
import resource
from pathlib import Path


def num_cores() -> int:
    """Processor cores that this process may use: a batch system often grants fewer than all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The processor as its maker names it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def peak_memory() -> int:
    """Most bytes of memory that this process has held so far (peak resident set)."""
    try:
        # Linux starts the count of getrusage at what the parent held when it started us.
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
