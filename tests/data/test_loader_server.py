"""Promises of loader workers' processes: no thread where they are forked, no signal, no orphan."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pix2pix.data import loader_server
from pix2pix.data.batches import EvaluationBatches
from pix2pix.data.data_set import open_data
from pix2pix.data.reader import ShardReader
from pix2pix.data.stream import BatchStream
from pix2pix.errors import UserError
from pix2pix.system.signals import StopRequest

CPU = torch.device("cpu")


def batches_of(shards):
    return EvaluationBatches(
        ShardReader(open_data([str(shards)], "train", 64), 64), 0, 1, batch_size=2
    )


def status_of(pid, field):
    """A number of /proc/PID/status, proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def signal_all_until(event):
    while not event.wait(0.001):
        for number in StopRequest.signals:
            os.killpg(0, number)


def load_while_all_are_signalled(shards):
    """What the child process does, the first of its process group."""
    before = [signal.getsignal(number) for number in StopRequest.signals]
    loader_server.start()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert [signal.getsignal(number) for number in StopRequest.signals] == before
    me = os.getpid()
    servers = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    for number in StopRequest.signals:
        signal.signal(number, signal.SIG_IGN)
        os.killpg(0, number)  # while the server imports torch
    batches = batches_of(Path(shards))
    arrived = threading.Event()
    threading.Thread(target=signal_all_until, args=(arrived,), daemon=True).start()
    with BatchStream(batches, range(len(batches)), CPU, num_workers=2) as stream:
        for _ in range(4):
            stream.next()  # two of each worker
        arrived.set()
        workers = stream._batches._workers
        parents = {status_of(worker.pid, "PPid") for worker in workers}
        assert parents < set(map(int, servers))  # not one started later
        assert [status_of(parent, "Threads") for parent in parents] == [1]
        time.sleep(0.5)
        assert all(worker.is_alive() for worker in workers)
        assert len(stream.next().flip) == 2
        print(*servers, *(worker.pid for worker in workers), flush=True)
        time.sleep(60)


def test_signals_to_every_process_end_no_worker_and_a_killed_training_leaves_none(tiny_shards):
    code = (
        "import sys; from tests.data.test_loader_server import load_while_all_are_signalled as load"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; load(sys.argv[1])", str(tiny_shards)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    ) as training:
        try:
            pids = [int(pid) for pid in training.stdout.readline().split()]
        finally:
            training.kill()
    assert len(pids) == 4  # torch's tracker of semaphores, the server, two workers
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def report_the_mask(pipe):
    pipe.send(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def test_what_else_is_started_through_the_server_hears_signals():
    loader_server.start()
    mine, theirs = loader_server.context.Pipe(duplex=False)
    process = multiprocessing.get_context("forkserver").Process(
        target=report_the_mask, args=(theirs,)
    )
    process.start()
    assert mine.poll(30)
    assert mine.recv() == set()
    process.join()


def test_without_semaphores_the_error_says_what_to_do(tiny_shards, monkeypatch):
    def refuse():
        raise OSError(30, "Read-only file system")  # as where /dev/shm is

    monkeypatch.setattr(loader_server.context, "Lock", refuse)
    with pytest.raises(UserError, match=r"can't start \(Read-only file system.*--num_workers 0"):
        BatchStream(batches_of(tiny_shards), range(4), CPU, num_workers=1)
