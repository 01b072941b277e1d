"""The server that forks loader workers: a process without threads, which imports torch once.

A worker forked from the training itself would inherit the locks that its threads (gloo, checkpoint
writer) hold at that moment, and could wait for one of them forever.
"""

import multiprocessing
import signal
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import ForkServerContext, ForkServerProcess

from pix2pix.errors import UserError
from pix2pix.system.machine import end_with_parent, keep_freed_memory
from pix2pix.system.signals import StopRequest


class Worker(ForkServerProcess):
    """A process that stop signals do not reach."""


class Context(ForkServerContext):
    """The multiprocessing context with which torch's DataLoader starts workers."""

    Process = Worker


context = Context()


def start() -> None:
    """Start the server unless it is running. It imports torch while this process continues.

    Ctrl-C and schedulers signal every process of a job, but the job saves one step later. So stop
    signals are blocked in the server and its workers: for torch, workers of a dead server are dead.

    Raises:
        UserError: the system does not allow another process or semaphore.
    """
    context.set_forkserver_preload(["torch.utils.data", "torchvision.io", __name__])
    try:
        for server in (resource_tracker, forkserver):  # each unblocks signals after it has started
            previous = signal.pthread_sigmask(signal.SIG_BLOCK, StopRequest.signals)
            try:
                server.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        context.Lock()  # fails here: DataLoader would fail too late to clean up
    except OSError as error:
        raise UserError(
            f"loader processes can't start ({error.strerror}: /dev/shm, often); with "
            "--num_workers 0 pictures are loaded without them"
        ) from error


def start_worker(worker: int) -> None:
    """Prepare a worker; torch's DataLoader calls this first."""
    keep_freed_memory()
    for number in StopRequest.signals:  # in case other code started the server
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _hear_signals(stop: type[StopRequest]) -> None:
    """Unblock signals in other processes that multiprocessing starts through the server."""
    if not isinstance(multiprocessing.current_process(), Worker):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop.signals)


util.register_after_fork(StopRequest, _hear_signals)  # called when a process starts
