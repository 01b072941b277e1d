"""Work on many shards by several processes, which stop when their parent does."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pix2pix.errors import UserError
from pix2pix.system.machine import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")


def work_in_parallel(
    work: Callable[[Task, Callable[[], None]], Result],
    tasks: Sequence[Task],
    num_workers: int,
    advance: Callable[[int], None],
) -> list[Result]:
    """Run `work(task, count)` for each of `tasks`, a shard each, and return what it returned.

    Raises what it raised. No picture passes between processes.

    Args:
        work: a function of a module; it calls `count` per photograph.
        tasks: what to work on.
        num_workers: processes; with one, or one task, this process does the work.
        advance: is told how many more photographs are done.
    """
    num_workers = min(num_workers, len(tasks))
    if num_workers <= 1:
        return [work(task, lambda: advance(1)) for task in tasks]
    # Spawned, not forked: a fork inherits the locks and threads of whatever imported us.
    context = multiprocessing.get_context("spawn")
    # A worker may be killed with the lock of `done` in its hands: the parent takes none.
    done, stop = context.Value("q", 0), context.RawValue("b", 0)
    setup = (done, stop)
    with ProcessPoolExecutor(num_workers, context, _start_worker, setup) as pool:
        futures = [pool.submit(_run, work, task) for task in tasks]
        pending, seen = set(futures), 0
        try:
            while pending:
                finished, pending = wait(pending, 0.2, FIRST_COMPLETED)
                now = done.get_obj().value
                advance(now - seen)
                seen = now
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process was killed, for its memory perhaps; run the same command again "
                "with a smaller --num_workers"
            ) from error
        finally:
            stop.value = 1  # else the others would finish their shards first
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


# What a worker has from its parent; _start_worker sets them.
_done: Any  # number of photographs done, shared by all
_stop: Any  # 1 when shards are no longer wanted


class _Stopped(Exception):
    """Raised in a worker when its shard is no longer wanted."""


def _start_worker(done: Any, stop: Any) -> None:
    global _done, _stop
    _done, _stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: the parent speaks for all
    end_with_parent()


def _run(work: Callable[[Task, Callable[[], None]], Result], task: Task) -> Result:
    return work(task, _count)


def _count() -> None:
    if _stop.value:
        raise _Stopped
    with _done.get_lock():
        _done.value += 1
