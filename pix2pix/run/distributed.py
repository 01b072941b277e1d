"""The only file that knows ranks, with agreement.py: Accelerator, reductions, errors for all.

Everything else is told what it needs: which part of the data is mine, here is the mean over all
ranks, rank 0 writes. A process that was not launched as one of many is rank 0 of 1.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from pix2pix.cli.help import wrap
from pix2pix.errors import LostProcessError, UserError
from pix2pix.run.devices import check_gpus, device_ids
from pix2pix.run.leaving import leave_together
from pix2pix.system.cores import cores_of_process, share_of_cores

# NCCL's watchdog aborts the process with a stack dump. The exchange of each step, on the CPU group,
# hangs with it, and says so in a line: it goes first.
NCCL_GRACE = timedelta(minutes=1)

# A core decodes 960 photographs a second, and an H100 can't train on more than 9,200.
MOST_WORKERS = 16

T = TypeVar("T")


class Distributed:
    """This process among the others of one training or evaluation.

    Creating it joins the process group that the launcher's environment describes. Used as a
    context, it leaves the group in the end, and a collective that waits longer than
    `timeout_minutes`, or whose peer has died, raises LostProcessError: nobody hangs for ever.
    num_threads: of torch on a CPU; None takes OMP_NUM_THREADS where the user has set it, else
        this rank's share of the cores.
    num_cores: that share: what affinity and quota grant, divided among the ranks that share it.
    """

    def __init__(self, timeout_minutes: float = 10, num_threads: int | None = None) -> None:
        _follow_launcher()
        check_gpus()
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # or accelerate sets it, and warns
        self.timeout = timedelta(minutes=timeout_minutes)
        on_gpu = torch.cuda.is_available()
        group = InitProcessGroupKwargs(
            timeout=self.timeout + (NCCL_GRACE if on_gpu else timedelta())
        )
        with self._losing_nobody():
            # Precision is ours (step.py): under Accelerate fp16 on a CPU is silently fp32.
            self.accelerator = Accelerator(
                cpu=not on_gpu,
                mixed_precision="no",
                dynamo_backend="no",  # or DDP itself would be compiled; `Trainer` does it
                kwargs_handlers=[group],
            )
        self._groups: list[dist.ProcessGroup] = []
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.device: torch.device = self.accelerator.device
        self.is_main: bool = self.accelerator.is_main_process
        self.is_local_main: bool = self.accelerator.is_local_main_process
        self.local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size))
        with self._losing_nobody():
            mine = cores_of_process()
            share = share_of_cores(mine, self.all_gather_object(mine))
        self.num_cores = num_threads or share
        if self.device.type == "cpu":
            torch.set_num_threads(num_threads or _told_threads() or self.num_cores)

    def __enter__(self) -> "Distributed":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._losing_nobody():
            if error is not None and _is_of_a_collective(error):
                raise error
        if isinstance(error, UserError) and error.tell is None and self.world_size > 1:
            error.tell = self._tells_first(str(error))
        if error is None or self.world_size == 1:
            self.shutdown()  # else the caller tells the error, and leaves: NCCL would wait here

    @property
    def device_name(self) -> str:
        """For people: "cpu", or the GPU's name."""
        is_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_gpu else self.device.type

    def _tells_first(self, message: str) -> bool:
        """Return True if this rank is the first to end with this message: then it prints it."""
        try:
            store = dist.distributed_c10d._get_default_store()
            return bool(store.add(f"pix2pix/{message}", 1) == 1)
        except (RuntimeError, ValueError):  # who serves the store is gone: nobody else tells
            return True

    def loader_workers(self, wanted: int | None = None) -> int:
        """Return how many processes decode for this rank: `wanted`, or what suits the machine."""
        if wanted is not None:
            return wanted
        if self.device.type == "cpu":
            return 1  # more would take cores from the networks, and one keeps up with them
        return max(1, min(MOST_WORKERS, self.num_cores - 1))

    def say(self, text: str | None) -> None:
        """Print a line, once; None: nothing."""
        if self.is_main and text:
            print(text, flush=True)

    def advise(self, text: str | None) -> None:
        """Print prose, once, within 80 columns; None: nothing."""
        self.say(text and wrap(text))

    def cpu_group(self) -> dist.ProcessGroup | None:
        """Return a new gloo group over all ranks, None for a single process.

        Whoever communicates from its own thread or out of step with the training needs a group of
        its own: two users of one group would match each other's messages.
        """
        if self.world_size == 1:
            return None
        group = cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=self.timeout))
        self._groups.append(group)
        return group

    def parallel(self, module: nn.Module, compression: str = "none") -> nn.Module:
        """Return `module` on the device, wrapped so that backward averages over the ranks.

        compression: "bf16" sends gradients at half their size, rounded; "none" as they are.
        """
        module = module.to(self.device)
        if self.world_size == 1:
            return module
        # Gradients that are views of the buckets save their size in memory, and a copy each way
        # (torch 2.14, nn/parallel/distributed.py). Buckets keep their 25 MiB: a 4×4 convolution of
        # 1,024 to 512 channels has 32 MiB, so larger ones would only start later.
        wrapped = nn.parallel.DistributedDataParallel(
            module, device_ids=device_ids(self.device), gradient_as_bucket_view=True
        )
        if compression == "bf16":
            wrapped.register_comm_hook(None, _average_in_bf16)
        # Batch statistics are per rank while training; who reads running statistics
        # (evaluation, checkpoints) asks for rank 0's first. Torch 2.13 renamed the argument.
        wrapped.broadcast_buffers = False
        return wrapped

    def broadcast_buffers(self, *modules: nn.Module) -> None:
        """Give every rank rank 0's buffers. Never averaged: then saving would change the run."""
        for module in modules:
            self.broadcast(module.buffers())

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank rank 0's values of these."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over ranks, element by element. Every rank must call it."""
        return self.sum(values) / self.world_size

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over ranks, element by element. Every rank must call it."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self.accelerator.wait_for_everyone()

    def run_on_main(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and give its (picklable) result, or its UserError, to every rank.

        For what must be decided once: a look at the file system may differ from node to node.
        """
        outcome: list[T | UserError | None] = [None]
        if self.is_main:
            try:
                outcome = [work()]
            except UserError as error:
                outcome = [error]
        if self.world_size > 1:
            dist.broadcast_object_list(outcome, src=0)
        if isinstance(outcome[0], UserError):
            raise self._agreed(outcome[0])
        return outcome[0]  # type: ignore[return-value]

    def all_gather_object(self, word: T, group: dist.ProcessGroup | None = None) -> list[T]:
        """Return the (picklable) `word` of each rank, by rank. `group`: as for `cpu_group`."""
        if self.world_size == 1:
            return [word]
        words: list[T | None] = [None] * self.world_size
        dist.all_gather_object(words, word, group=group)
        return cast("list[T]", words)

    def raise_on_all_ranks(self, error: str | UserError | None) -> None:
        """Raise the first rank's error as UserError on every rank; no error anywhere: return.

        error: its message, or one of a kind of its own, such as a StorageError.
        """
        first = next(filter(None, self.all_gather_object(error)), None)
        if first is not None:
            raise self._agreed(first if isinstance(first, UserError) else UserError(first))

    def _agreed(self, error: UserError) -> UserError:
        """Return an error that every rank raises: rank 0 prints it."""
        error.tell = self.is_main
        return error

    @contextlib.contextmanager
    def _losing_nobody(self) -> Iterator[None]:
        """Make the error of a collective one sentence: who waited, where, and what to do."""
        try:
            yield
        except RuntimeError as error:
            if not _is_of_a_collective(error):
                raise
            rank, where = os.environ.get("RANK", "0"), _place(error)
            if re.search("[Tt]imed? ?out", str(error)):
                minutes = self.timeout.total_seconds() / 60
                what = (
                    f"waited {minutes:g} minutes for another, which hangs or is lost with its node"
                )
            else:
                what = "lost another, which has ended; its own message, if it left one, says why"
            raise LostProcessError(
                f"process {rank} of this training {what} ({where}). Run the same command again to "
                "go on from the newest checkpoint"
            ) from None

    def shutdown(self) -> None:
        """Leave the process group with all ranks, its threads ended; every rank calls it."""
        if dist.is_initialized():
            groups, self._groups = self._groups, []
            leave_together(groups)


def _average_in_bf16(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Average a bucket of gradients over the ranks, sent in bf16.

    As torch's bf16_compress_hook (distributed/algorithms/ddp_comm_hooks/default_hooks.py), which
    refuses to work with gloo. bf16 has the range of fp32: what is not finite stays so.
    """
    gradients = bucket.buffer()
    sent = gradients.to(torch.bfloat16).div_(dist.get_world_size())
    reduced = dist.all_reduce(sent, async_op=True).get_future()
    return reduced.then(lambda done: gradients.copy_(done.value()[0]))


def _is_of_a_collective(error: BaseException) -> bool:
    """Return True if torch raised it because another process is gone or silent."""
    gloo_or_nccl = re.search(r"gloo/|[Cc]onnection (closed|reset)|NCCL", str(error)) is not None
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and gloo_or_nccl)


def _place(error: BaseException) -> str:
    """Return the innermost function of ours that the error came through."""
    ours = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if Path(frame.filename).parent == ours]
    frame = (mine or list(frames))[-1]
    return f"{frame.name} in {Path(frame.filename).name}, line {frame.lineno}"


def _told_threads() -> int | None:
    told = os.environ.get("OMP_NUM_THREADS", "")
    # 1 is what launchers set, whatever the machine has.
    return int(told) if told.isdecimal() and int(told) > 1 else None


def _follow_launcher() -> None:
    """Ask the kernel for a SIGTERM when the launcher dies: it would leave this process training.

    prctl(2), PR_SET_PDEATHSIG, Linux only. A process that was started by hand, or under nohup,
    outlives its shell.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
