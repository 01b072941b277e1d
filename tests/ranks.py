"""Run a function on several ranks: processes forked from a server that imported torch once."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pix2pix.trainer", "pix2pix.colorizer", "tests.training"])


def run_ranks(work: Callable[..., Any], world_size: int, *args: Any, seconds: float = 90) -> list:
    """`work(*args)` in `world_size` processes of one process group; their results by rank.

    Raises AssertionError with the traceback of the first rank that failed, and kills what is left
    after `seconds`.
    """
    port = _free_port()
    pipes, processes = [], []
    for rank in range(world_size):
        mine, theirs = _context.Pipe(duplex=False)
        process = _context.Process(
            target=_rank_main, args=(theirs, rank, world_size, port, work, args), daemon=False
        )
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    try:
        return [_receive(pipe, rank, seconds) for rank, pipe in enumerate(pipes)]
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _receive(pipe: Connection, rank: int, seconds: float) -> Any:
    assert pipe.poll(seconds), f"rank {rank} is not done after {seconds} s"
    try:
        ok, value = pipe.recv()
    except EOFError:
        raise AssertionError(f"rank {rank} died without a word") from None
    assert ok, f"rank {rank} failed:\n{value}"
    return value


def _rank_main(
    pipe: Connection, rank: int, world_size: int, port: int, work: Callable[..., Any], args: tuple
) -> None:
    os.environ.update(ACCELERATE_USE_CPU="true", CUDA_VISIBLE_DEVICES="")
    if world_size > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            LOCAL_WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    # Loader workers of this rank are forked from it: another server would import torch again.
    multiprocessing.set_start_method("fork", force=True)
    try:
        result = (True, work(*args))
    except BaseException:
        result = (False, traceback.format_exc())
    pipe.send(result)
    pipe.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
