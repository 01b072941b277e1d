"""A process that hangs or dies ends the others soon, each with one line and a status."""

import contextlib
import os
import signal
import time

import pytest
import torch.distributed as dist

from pix2pix.errors import LostProcessError
from pix2pix.run.distributed import Distributed
from tests.chaos.ranks import Ranks
from tests.ranks import free_port, run_ranks
from tests.training.test_launcher import TINY

TIMEOUT_SECONDS = 6


@contextlib.contextmanager
def training(tmp_path, shards, **changes):
    """Two processes of scripts/train.py in the midst of a training."""
    flags = TINY | {
        "shards": shards,
        "run_dir": tmp_path / "run",
        "total_steps": 100_000,
        "collective_timeout_minutes": TIMEOUT_SECONDS / 60,
    }
    arguments = [f"--{name}={value}" for name, value in (flags | changes).items()]
    ranks = Ranks(tmp_path / "ranks", arguments, 2, launched=False)
    try:
        deadline = time.monotonic() + 60
        while len(ranks.trace(1)) < 3:
            assert time.monotonic() < deadline, ranks.output()
            time.sleep(0.02)
        yield ranks
    finally:
        ranks.kill(ranks.running())


def ends_with_one_line(ranks, rank, words):
    """The rank ends with status 69 and, beside the progress bar, one error."""
    assert ranks.status(rank) == 69
    text = (ranks.folder / f"rank{rank}.log").read_text()
    assert "Traceback" not in text
    assert "terminate called" not in text
    (error,) = [" ".join(part.split()) for part in text.split("error: ")[1:]]
    assert f"process {rank} of this training {words}" in error
    assert error.endswith("Run the same command again to go on from the newest checkpoint")


def test_a_process_that_hangs_ends_the_others_within_the_time_out(tmp_path, tiny_shards):
    with training(tmp_path, tiny_shards) as ranks:
        pids = ranks.running()
        os.kill(pids[0], signal.SIGSTOP)
        since = time.monotonic()
        ends_with_one_line(ranks, 1, "waited 0.1 minutes for another")
        assert TIMEOUT_SECONDS - 2 < time.monotonic() - since < TIMEOUT_SECONDS + 20
        os.kill(pids[0], signal.SIGCONT)  # it sees that it is alone, by its clock or by the others
        assert ranks.wait(20)
        ends_with_one_line(ranks, 0, "")


def test_a_process_that_dies_ends_the_others_at_once(tmp_path, tiny_shards):
    with training(tmp_path, tiny_shards, collective_timeout_minutes=10) as ranks:
        os.kill(ranks.running()[0], signal.SIGKILL)
        assert ranks.wait(20)
        ends_with_one_line(ranks, 1, "lost another, which has ended")


def start_alone():
    """Rank 0 of two whose other is never started."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    try:
        Distributed(timeout_minutes=1 / 60, num_threads=1)
    except LostProcessError as error:
        return str(error)
    return "no error"


def test_a_start_whose_other_process_never_comes_ends_in_time():
    assert "process 0 of this training waited" in run_ranks(start_alone, 1)[0]


def raises_in_context(error_type):
    with contextlib.suppress(LostProcessError), Distributed(1, num_threads=1):
        raise error_type("a mistake of ours")


@pytest.mark.parametrize("error_type", [RuntimeError, ValueError, KeyError])
def test_other_errors_keep_their_type_and_traceback(error_type):
    with pytest.raises(AssertionError, match=f"{error_type.__name__}.*a mistake of ours"):
        run_ranks(raises_in_context, 1, error_type)


def group_inside_and_after():
    with Distributed(1, num_threads=1):
        inside = dist.is_initialized()
    return inside, dist.is_initialized()


def test_the_group_is_left_in_the_end():
    assert run_ranks(group_inside_and_after, 2) == [(True, False)] * 2
