"""Run a function on several ranks: processes forked from a server that imported torch once."""

import faulthandler
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import psutil

from tests.devices import ON_CPU

LATE = "hangs, or is slow: it prints where it is"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["pix2pix.training.trainer", "pix2pix.colorizing.colorizer", "tests.small_training"]
)


def run_ranks(
    work: Callable[..., Any],
    world_size: int,
    *args: Any,
    seconds: float = 90,
    environment: dict[str, str] = ON_CPU,
) -> list:
    """`work(*args)` in `world_size` processes of one process group; their results by rank.

    environment: variables of each rank.
    Raises AssertionError with what became of each rank where any failed: its traceback, or where it
    hangs, which it prints; and kills what is left after `seconds`.
    """
    port = free_port()
    pipes, processes = [], []
    for rank in range(world_size):
        mine, theirs = _context.Pipe(duplex=False)
        process = _context.Process(
            target=_rank_main,
            args=(theirs, environment, rank, world_size, port, work, args),
            daemon=False,
        )
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    try:
        outcomes = _outcomes(pipes, seconds)
        for (_, value), process in zip(outcomes, processes, strict=True):
            if value == LATE:
                _print_stacks(process.pid)
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
    failures = [f"rank {rank} {value}" for rank, (ok, value) in enumerate(outcomes) if not ok]
    assert not failures, "\n".join(failures)
    return [value for _, value in outcomes]


def _outcomes(pipes: list[Connection], seconds: float) -> list[tuple[bool, Any]]:
    deadline = time.monotonic() + seconds
    outcomes = []
    for pipe in pipes:
        outcomes.append(_receive(pipe, deadline))
        if not outcomes[-1][0]:  # the one that it waited for may not have given up yet
            deadline = min(deadline, time.monotonic() + 5)
    return outcomes


def _receive(pipe: Connection, deadline: float) -> tuple[bool, Any]:
    """Whether the rank returned, and what; else what became of it."""
    if not pipe.poll(max(0, deadline - time.monotonic())):
        return False, LATE
    try:
        return pipe.recv()
    except EOFError:
        return False, "died without a word"


def _print_stacks(pid: int) -> None:
    """Let a rank and its loader workers print where each of their threads is."""
    rank = psutil.Process(pid)
    for process in [rank, *rank.children()]:
        process.send_signal(signal.SIGQUIT)
        time.sleep(0.5)  # else they write at the same time


def _rank_main(
    pipe: Connection,
    environment: dict[str, str],
    rank: int,
    world_size: int,
    port: int,
    work: Callable[..., Any],
    args: tuple,
) -> None:
    faulthandler.register(signal.SIGQUIT)
    os.environ.update(environment)
    if world_size > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            LOCAL_WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    try:
        result = (True, work(*args))
    except BaseException:
        result = (False, f"failed:\n{traceback.format_exc()}")
    pipe.send(result)
    pipe.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
