"""Shards made by several processes, which stop when their parent does, and one owner per folder."""

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import IO, Any

from data_prep.shard_file import ShardTask, make_shard
from pix2pix.errors import UserError

_PATIENCE_SECONDS = 10.0  # for the workers of a killed run, which need milliseconds to notice


@contextmanager
def own(root: Path) -> Iterator[None]:
    """Be the only run that writes shards to `root`; raises UserError while there is another.

    The kernel releases the locks however a process ends. Where a file system has no locks, none
    are held.
    """
    with _owner_lock(root).open("a") as owner, _worker_lock(root).open("a") as workers:
        if not _lock(owner, fcntl.LOCK_EX):
            raise UserError(f"another make_shards is writing to {root}; wait for it, or end it")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _lock(workers, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise UserError(f"processes of an earlier make_shards write to {root}; end them")
            time.sleep(0.01)
        _lock(workers, fcntl.LOCK_UN)
        yield


def make_shards_in_parallel(
    tasks: Sequence[ShardTask], num_workers: int, advance: Callable[[int], None]
) -> None:
    """Make every shard of `tasks`; `advance` is told how many photographs more are done.

    A worker makes whole shards: no picture passes between processes. Raises what a worker raised.
    """
    num_workers = min(num_workers, len(tasks))
    if num_workers <= 1:
        for task in tasks:
            make_shard(task, lambda: advance(1))
        return
    # Spawned, not forked: a fork inherits the locks and threads of whatever imported us.
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    setup = (_worker_lock(tasks[0].root), done, stop)
    with ProcessPoolExecutor(num_workers, context, _start_worker, setup) as pool:
        pending = {pool.submit(_make_shard, task) for task in tasks}
        seen = 0
        try:
            while pending:
                finished, pending = wait(pending, 0.2, FIRST_COMPLETED)
                now = done.value
                advance(now - seen)
                seen = now
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, for its memory perhaps; run the same command again "
                "with a smaller --num_workers: what is done stays done"
            ) from error
        finally:
            stop.set()  # else the others would finish their shards first
            pool.shutdown(cancel_futures=True)


# What a worker has from its parent; _start_worker sets them.
_done: Any  # number of photographs done, shared by all
_stop: Any  # set when shards are no longer wanted
_held: IO[str]  # the worker lock, until the process ends


class _Stopped(Exception):
    """Raised in a worker when its shard is no longer wanted."""


def _start_worker(lock: Path, done: Any, stop: Any) -> None:
    global _done, _stop, _held
    _done, _stop = done, stop
    _held = lock.open("a")
    _lock(_held, fcntl.LOCK_SH)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: the parent speaks for all
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """An executor's workers outlive a parent that was killed, waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _make_shard(task: ShardTask) -> None:
    make_shard(task, _count)


def _count() -> None:
    if _stop.is_set():
        raise _Stopped
    with _done.get_lock():
        _done.value += 1


def _lock(file: IO[str], kind: int) -> bool:
    """Whether the lock was had; True as well where the file system knows no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        message = f"{file.name}: no locks on this file system ({error.strerror})"
        print(f"{message}; let only one make_shards write there", file=sys.stderr)
    return True


def _owner_lock(root: Path) -> Path:
    return root / ".lock"


def _worker_lock(root: Path) -> Path:
    return root / ".lock.workers"
