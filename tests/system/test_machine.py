"""What is promised of memory that a process frees."""

import subprocess
import sys

# Pages that the second of two equal pictures needs anew; a page is 4 KB, or more.
PAGES_OF_THE_SECOND = """
import resource, sys
import numpy as np
from pix2pix.system.machine import keep_all_freed_memory

if sys.argv[1] == "keep":
    keep_all_freed_memory()
np.ones(2**26, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**26, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    command = [sys.executable, "-c", PAGES_OF_THE_SECOND, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_memory_that_is_kept_is_there_at_once():
    assert pages("keep") <= pages("plain") / 2
