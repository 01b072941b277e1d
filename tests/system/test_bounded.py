"""A program ends in time, with what it started; what it wrote until then is kept."""

import os
import sys
import time

import psutil

from pix2pix.system.bounded import run_bounded

# A child that holds the output open and ends with nobody, as a process in a driver does.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def test_status_and_words_of_a_program_that_ends():
    command = [sys.executable, "-c", "import os; print(os.environ['WORD']); exit('why')"]
    ended = run_bounded(command, 60, {"WORD": "said"})
    assert (ended.status, ended.output, ended.errors) == (1, "said\n", "why\n")


def test_a_program_whose_time_is_over_ends_with_the_processes_it_started():
    began = time.monotonic()
    ended = run_bounded([sys.executable, "-c", PARENT, "600"], 4)
    assert time.monotonic() - began < 60
    assert ended.status is None
    assert is_gone(int(ended.output))


def test_what_a_program_leaves_behind_ends_with_it():
    ended = run_bounded([sys.executable, "-c", PARENT, "0"], 60)
    assert ended.status == 0
    assert is_gone(int(ended.output))


def is_gone(pid: int) -> bool:
    """Killed; whoever adopted it may not have noticed yet."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, psutil.NoSuchProcess):
            return True
        time.sleep(0.05)
    return False
