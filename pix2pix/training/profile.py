"""`--profile`: a trace of a few steps for a viewer, and a table of where their time went."""

import gzip
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from pix2pix.system.durable import aside, publish

NUM_WARM_UP = 3  # first steps choose kernels and fill caches: they tell nothing about the others
NUM_OPERATIONS = 12  # rows of the table
LOADER = "enumerate(DataLoader)"  # how torch marks the wait for a batch


class StepProfile:
    """Traces `num_steps` steps of this rank after the first few; 0: none.

    Used as a context around the steps; a run that ends sooner leaves no trace, and says so. It
    reads clocks only, so no number of the training changes.
    folder: for the traces, a file of each rank; say: prints the table.
    """

    def __init__(
        self,
        num_steps: int,
        folder: Path,
        rank: int,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.last = NUM_WARM_UP + num_steps if num_steps else 0
        self.folder = folder
        self.rank = rank
        self.device = device
        self.say = say
        self.steps_done = 0
        self._trace: profile | None = None

    def __enter__(self) -> "StepProfile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._trace is not None:
            self._trace.stop()
        if kind is None and self.steps_done < self.last:
            traced = max(0, self.steps_done - NUM_WARM_UP)
            wanted = self.last - NUM_WARM_UP
            self.say(f"profile: the run ended after {traced} of {wanted} steps, nothing is written")

    def advance(self, step: int) -> None:
        """The step after which `state.step` is `step` is done."""
        self.steps_done += 1
        if self.steps_done == NUM_WARM_UP < self.last:
            self._start()
        elif self.steps_done == self.last and self._trace is not None:
            seconds = self._stop(self._trace)
            path = self.folder / f"step_{step:09d}.rank_{self.rank}.pt.trace.json.gz"
            write_trace(self._trace, path)
            on_gpu = self.device.type == "cuda"
            num_steps = self.last - NUM_WARM_UP
            self.say(table(self._trace.key_averages(), seconds, num_steps, on_gpu))
            self.say(f"trace: {path}\nopen it in https://ui.perfetto.dev or TensorBoard")
            self._trace = None

    def _start(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or it tells of itself on stderr
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.synchronize(self.device)
        self._trace = profile(activities=activities)
        self._trace.start()
        self.started = time.perf_counter()

    def _stop(self, trace: profile) -> float:
        """Seconds since the start."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - self.started
        trace.stop()
        return seconds


def write_trace(trace: profile, path: Path) -> None:
    """Put a finished trace at `path`, compressed; TensorBoard asks for its .pt.trace.json.gz."""
    path.parent.mkdir(exist_ok=True)
    trace.export_chrome_trace(str(aside(path)))
    publish(path, gzip.compress(aside(path).read_bytes()))


class _Row(NamedTuple):
    name: str
    seconds: float
    calls: int


def table(
    averages: Iterable[FunctionEventAvg], seconds: float, num_steps: int, on_gpu: bool
) -> str:
    """Where `num_steps` steps, which took `seconds`, spent their time: 80 columns.

    Time is that of the operation itself, without those that it calls: of the GPU, or of the
    processor where there is none.
    """
    rows, waited = [], 0.0
    for event in averages:
        if event.device_type != DeviceType.CPU:
            continue  # kernels: the operations that launched them have their time, too
        key = event.key or ""
        if key.startswith(LOADER):
            waited += event.cpu_time_total / 1e6
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        rows.append(_Row(_short(key), microseconds / 1e6, event.count))
    rows.sort(key=lambda row: -row.seconds)
    operations = [row for row in rows if row.seconds > 0 and not row.name.startswith(LOADER)]
    rest = operations[NUM_OPERATIONS:]
    others = _Row("other operations", sum(r.seconds for r in rest), sum(r.calls for r in rest))
    idle = max(0.0, seconds - sum(row.seconds for row in rows))
    between = _Row("GPU idle" if on_gpu else "between operations", idle, num_steps)
    data = _Row("wait for data", waited, num_steps)
    lines = [f"{num_steps} steps of {seconds / num_steps * 1e3:,.1f} ms each:"]
    lines += [f"{'share':>7} {'ms a step':>11} {'calls a step':>13}  operation"]
    for row in [*operations[:NUM_OPERATIONS], others, between, data]:
        ms, calls = row.seconds / num_steps * 1e3, row.calls / num_steps
        share = f"{row.seconds / seconds:.1%}"
        lines.append(f"{share:>7} {ms:>11,.2f} {calls:>13,.1f}  {row.name[:45]}")
    return "\n".join(lines)


def _short(key: str) -> str:
    return key.removeprefix("autograd::engine::evaluate_function: ").removeprefix("aten::")
