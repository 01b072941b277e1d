"""Promises of the end of a training: nobody leaves while another still waits for a message."""

import time

from pix2pix.run.distributed import Distributed
from tests.ranks import run_ranks


def leave(folder):
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    if distributed.rank == 1:
        time.sleep(0.5)  # only so that a rank that does not wait is seen
        (folder / "leaves").touch()
    distributed.shutdown()
    return (folder / "leaves").exists()


def test_a_rank_leaves_when_all_leave(tmp_path):
    assert run_ranks(leave, 3, tmp_path) == [True, True, True]


def leave_alone(folder):
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    if distributed.rank == 0:
        distributed.shutdown()


def test_a_rank_that_stays_does_not_hold_the_others(tmp_path):
    run_ranks(leave_alone, 2, tmp_path, seconds=30)
