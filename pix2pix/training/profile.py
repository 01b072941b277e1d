"""`--profile`: a trace of a few steps for a viewer, and torch's table of where their time went."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler

from pix2pix.system.durable import publish

NUM_WARM_UP = 3  # first steps choose kernels and fill caches: they tell nothing about the others


class StepProfile:
    """Traces `num_steps` steps of this rank after the first few; 0: none.

    Used as a context around the steps; a run that ends sooner leaves no trace, and says so. It
    reads clocks only, so no number of the training changes.

    Args:
        num_steps: how many steps to trace.
        folder: for the files, a trace and a table of each rank.
        rank: this process's.
        device: what the steps run on.
        say: prints where the files are.
    """

    def __init__(
        self,
        num_steps: int,
        folder: Path,
        rank: int,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.num_steps = num_steps
        self.folder = folder
        self.rank = rank
        self.device = device
        self.say = say
        self.step = self.steps_done = 0
        self._profile: profile | None = None

    def __enter__(self) -> "StepProfile":
        if self.num_steps:
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or it tells of itself on stderr
            activities = [ProfilerActivity.CPU]
            if self.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(
                activities=activities,
                schedule=schedule(wait=NUM_WARM_UP - 1, warmup=1, active=self.num_steps, repeat=1),
                on_trace_ready=self._write,
            )
            self._profile.start()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if self._profile is None:
            return
        self._profile.stop()
        traced = max(0, self.steps_done - NUM_WARM_UP)
        if kind is None and traced < self.num_steps:
            wanted = self.num_steps
            self.say(f"profile: the run ended after {traced} of {wanted} steps, nothing is written")

    def advance(self, step: int) -> None:
        """Note that the step after which `state.step` is `step` is done."""
        if self._profile is not None:
            self.step = step
            self.steps_done += 1
            self._profile.step()

    def _write(self, traced: profile) -> None:
        """Write trace and table; torch calls it at the end, and where a run ends sooner, too."""
        if self.steps_done < NUM_WARM_UP + self.num_steps:
            return
        name = f"step_{self.step:09d}.rank_{self.rank}"
        tensorboard_trace_handler(str(self.folder), name, use_gzip=True)(traced)
        order = f"self_{'cuda' if self.device.type == 'cuda' else 'cpu'}_time_total"
        table = self.folder / f"{name}.txt"
        publish(table, traced.key_averages().table(sort_by=order, row_limit=30).encode())
        self.say(
            f"profile of {self.num_steps} steps in {self.folder}:\n"
            f"  {table.name}: where their time went\n"
            f"  {name}.….pt.trace.json.gz: for https://ui.perfetto.dev or TensorBoard"
        )
