"""An error that one rank meets alone is printed at once, and the rank leaves at once.

torch's destroy_process_group is replaced by one that never returns, as NCCL's does where the other
ranks are in the midst of a collective.
"""

import os
import socket
import subprocess
import sys

import pytest

CODE = """
import os, sys, time
import torch.distributed as dist
from dataclasses import dataclass
from pix2pix.cli.command_line import main
from pix2pix.errors import UserError
from pix2pix.run.distributed import Distributed

dist.destroy_process_group = lambda *group: time.sleep(3600)

@dataclass
class Options:
    pass

def work(options):
    with Distributed(timeout_minutes=1, num_threads=1) as me:
        if sys.argv[1] == "agreed":
            me.raise_on_all_ranks("rank 1 says it" if me.rank == 1 else None)
        if me.rank == 1:
            raise {"bug": RuntimeError, "user": UserError}[sys.argv[1]]("rank 1 alone says it")
        me.barrier()

main(work, Options, argv=[])
"""


def ranks(kind: str) -> list[tuple[int, str]]:
    """(status, output) of two ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, kind],
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
            | group
            | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        return [(process.wait(90), process.stdout.read()) for process in reversed(processes)][::-1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("kind", "status"), [("bug", 1), ("user", 2)])
def test_it_is_printed_and_the_process_leaves_although_the_group_can_not_be_closed(kind, status):
    (others_status, others_output), (own_status, own_output) = ranks(kind)
    assert own_status == status
    assert own_output.count("rank 1 alone says it") == 1
    assert ("Traceback" in own_output) == (kind == "bug")
    assert others_status == 69  # it has lost its peer
    assert "rank 1 alone says it" not in others_output


def test_an_error_that_all_agreed_on_is_printed_once():
    told = ranks("agreed")
    assert [status for status, _ in told] == [2, 2]
    assert sum(output.count("rank 1 says it") for _, output in told) == 1
