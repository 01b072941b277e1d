"""What is promised of memory that a process frees, and of the cores that it counts as its own."""

import subprocess
import sys

from pix2pix.system.machine import share_of_cores

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


def test_a_rank_bound_to_its_cores_has_them_all_and_others_share():
    bound = [frozenset(range(12 * rank, 12 * rank + 12)) for rank in range(8)]
    assert share_of_cores(12, bound[3], bound) == 12
    unbound = [frozenset(range(96))] * 8
    assert share_of_cores(96, unbound[0], unbound) == 12
    assert share_of_cores(4, unbound[0], unbound) == 1  # a quota of four cores, for all of them
    two_sockets = [frozenset(range(48))] * 4 + [frozenset(range(48, 96))] * 4
    assert share_of_cores(48, two_sockets[7], two_sockets) == 12
    alone = frozenset({5})
    assert share_of_cores(1, alone, [alone]) == 1
