"""The server that loader workers come from: a process without threads, which imports torch once.

A worker forked from the training itself would inherit the locks that its threads (gloo's, the
checkpoint writer's) hold at that moment, and may wait for one of them for ever.
"""

import multiprocessing
import signal
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext, ForkServerProcess

from pix2pix.errors import UserError
from pix2pix.system.machine import end_with_parent, keep_freed_memory
from pix2pix.system.signals import StopRequest


class Worker(ForkServerProcess):
    """A process that no stop signal reaches."""


class Context(ForkServerContext):
    """How torch's DataLoader makes workers, and what they share."""

    Process = Worker


context = Context()


def start() -> None:
    """Start the server, if it does not run; while this process goes on, it imports torch.

    Ctrl-C and schedulers signal every process of a job, which saves a step later. So stop signals
    are blocked in the server and its workers, that of a dead server being dead for torch.

    Raises UserError where the system lets no process or semaphore be made.
    """
    context.set_forkserver_preload(["torch.utils.data", "torchvision.io", __name__])
    try:
        for server in (resource_tracker, forkserver):  # each unblocks signals when it has started
            previous = signal.pthread_sigmask(signal.SIG_BLOCK, StopRequest.signals)
            try:
                server.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        context.Lock()  # DataLoader would notice too late to clean up after itself
    except OSError as error:
        raise UserError(
            f"loader processes can't start ({error.strerror}: /dev/shm, often); with "
            "--num_workers 0 pictures are loaded without any"
        ) from error


def start_worker(worker: int) -> None:
    """What torch's DataLoader calls first in each worker."""
    keep_freed_memory()
    for number in StopRequest.signals:  # where the server was started by others
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _hear_signals(stop: type[StopRequest]) -> None:
    """Let what else multiprocessing starts through the server hear signals."""
    if not isinstance(multiprocessing.current_process(), Worker):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop.signals)


util.register_after_fork(StopRequest, _hear_signals)  # called when a process begins
