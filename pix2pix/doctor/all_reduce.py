"""All-reduce as every step of a training makes it: whether it adds up, and how fast it is."""

import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pix2pix.doctor.findings import Finding, Patient, fails, note, ok

NUM_BYTES = {"cuda": 2**28, "cpu": 2**24}
SECONDS = 60  # for the processes to meet, and for each collective
ENOUGH = 5.0  # GB/s between GPUs; PCIe without peer access has less
_REPEATS = 5


def check_all_reduce(patient: Patient) -> list[Finding]:
    """Return a row on the bandwidth between the GPUs of this machine, where there are several."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [reduce_over(count, "cuda")] if count > 1 else []


def reduce_over(count: int, kind: str) -> Finding:
    """Return a row on all-reduce by `count` processes of this machine: NCCL on "cuda", else gloo.

    They meet through a file: no port can be taken, no host name has to resolve.
    """
    from torch.multiprocessing.spawn import spawn

    with tempfile.TemporaryDirectory(prefix="all-reduce-") as name:
        answer = Path(name, "answer")
        try:
            spawn(_join, args=(count, kind, Path(name, "store"), answer), nprocs=count)
            return rate_row("all-reduce", float(answer.read_text()), count, kind)
        except Exception as error:  # whatever NCCL, gloo or a process says
            words = str(error).strip().splitlines() or [type(error).__name__]
            return fails("all-reduce", words[-1][:200], "see what NCCL_DEBUG=INFO prints")


def measure(device: torch.device) -> float:
    """Return GB/s of all-reduce in the process group that this process is in.

    It is the bus bandwidth of NCCL's tests: each byte crosses 2(n−1)/n times.

    Raises:
        RuntimeError: the sum is wrong.
    """
    count = dist.get_world_size()
    values = torch.ones(NUM_BYTES[device.type] // 4, device=device)
    dist.all_reduce(values)
    if not bool((values == count).all()):
        raise RuntimeError(f"the sum of {count} ones is {values.float().mean().item():g}")
    dist.all_reduce(values)
    _wait(device)
    dist.barrier()
    began = time.perf_counter()
    for _ in range(_REPEATS):
        dist.all_reduce(values)
    _wait(device)
    seconds = (time.perf_counter() - began) / _REPEATS
    return values.nbytes * 2 * (count - 1) / count / seconds / 1e9


def rate_row(what: str, rate: float, count: int, kind: str) -> Finding:
    """Return the row of a rate in GB/s."""
    who = f"{count} GPUs" if kind == "cuda" else f"{count} processes on CPUs (gloo)"
    text = f"{rate:,.2f} GB/s over {who}; a step's gradients are 0.23 GB"
    if kind == "cuda" and rate < ENOUGH:
        return note(what, text, "slow: see what NCCL_DEBUG=INFO prints about the network")
    return ok(what, text)


def _join(rank: int, count: int, kind: str, store: Path, answer: Path) -> None:
    device = torch.device(kind, rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if kind == "cuda" else "gloo"
    limit = timedelta(seconds=SECONDS)
    files = dist.FileStore(str(store), count)
    dist.init_process_group(backend, timeout=limit, world_size=count, rank=rank, store=files)
    rate = measure(device)
    if rank == 0:
        answer.write_text(str(rate))
    dist.destroy_process_group()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
