"""Means of the steps since the last log, and the steps that were not finite.

Both read what has arrived from the device, and wait for it only when something is saved anyway.
"""

import contextlib
import math
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pix2pix.data.stream import BatchStream
from pix2pix.run.distributed import Distributed
from pix2pix.training.step import StepMetrics

TAGS = {
    "discriminator_loss": "loss/discriminator",
    "generator_adversarial": "loss/generator_adversarial",
    "generator_l1": "loss/generator_l1",
    "real_score": "discriminator/real",
    "fake_score": "discriminator/fake",
    "fake_colorfulness": "colorfulness/fake",
    "real_colorfulness": "colorfulness/real",
    "discriminator_gradient_norm": "gradient_norm/discriminator",
    "generator_gradient_norm": "gradient_norm/generator",
    "skipped_updates": "gradient_norm/skipped_updates",
    "failed_updates": "gradient_norm/failed_updates",
}


NUM_NAMED = 4  # samples of a failed step that its line names; metrics.jsonl has them all


class Arriving:
    """Values on their way to the host, which nobody waits for until they are read.

    A synchronous copy would wait for all that the device has yet to do, and the device then for the
    host. torch copies into pinned memory here (torch 2.14, aten/src/ATen/native/
    TensorConversions.cpp, `_to_copy`: pin_out); the event says when that is done.
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._event = _event_after(values)

    @property
    def are_here(self) -> bool:
        """Return True if `read` does not wait."""
        return self._event is None or self._event.query()

    def read(self) -> list[float]:
        """Return the values; waits for them."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._values.tolist()
        return values


def _event_after(values: Tensor) -> torch.cuda.Event | None:
    """Return an event after all that was asked of the values' device; None for a CPU."""
    if not values.is_cuda:
        return None
    event = torch.cuda.Event()
    event.record()
    return event


class Closed(NamedTuple):
    """A window that is over. values: the means, and the seconds that a rank waited for data."""

    values: Arriving
    steps: int
    seconds: float

    def means(self) -> dict[str, float]:
        """Return means over steps and ranks by tag; waits for the device."""
        *values, waited = self.values.read()
        means = dict(zip((TAGS[name] for name in StepMetrics.names()), values, strict=True))
        return means | {"speed/share_waited_for_data": waited / self.seconds}

    @property
    def steps_per_second(self) -> float:
        """Return the rate of the host, which is that of the device but for the queue between."""
        return self.steps / self.seconds


class MeanWindow:
    """Means of the steps since the last log, kept on the device until then.

    Attributes:
        seconds: time of each part other than the steps since the start of the training.
    """

    def __init__(self, stream: BatchStream) -> None:
        self.stream = stream
        self.seconds: dict[str, float] = defaultdict(float)
        self.total: Tensor | None = None
        self.steps = 0
        self._restart()

    def add(self, metrics: StepMetrics) -> None:
        """Add one step, without synchronization."""
        values = metrics.stacked()
        self.total = values if self.total is None else self.total + values
        self.steps += 1

    def close(self, distributed: Distributed) -> Closed:
        """Average over steps and ranks, without synchronization; start a new window."""
        assert self.total is not None
        # Filled on the device: a copy of a number from the host would wait for it.
        waited = self.total.new_full((1,), self.stream.seconds_waited - self.waited_before)
        values = Arriving(distributed.mean(torch.cat([self.total / self.steps, waited])))
        closed = Closed(values, self.steps, time.perf_counter() - self.since)
        self._restart()
        return closed

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time inside as `part`."""
        begun = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - begun

    @contextlib.contextmanager
    def paused(self, part: str) -> Iterator[None]:
        """Count the time inside as `part`, and not as training time."""
        if self.stream.device.type == "cuda":
            torch.cuda.synchronize(self.stream.device)  # the steps before this are training time
        before = self.seconds[part]
        with self.timed(part):
            yield
        self.since += self.seconds[part] - before

    def _restart(self) -> None:
        self.total, self.steps = None, 0
        self.since = time.perf_counter()
        self.waited_before = self.stream.seconds_waited


class FailedStep(NamedTuple):
    """A step that left a network unchanged, because its numbers were not finite."""

    number: int  # `state.step` after it, as logs and checkpoints count
    networks: tuple[str, ...]

    def described(self, keys: Sequence[str]) -> str:
        """Return a line on the failed step; keys: of its samples."""
        more = f" and {len(keys) - NUM_NAMED} more" if len(keys) > NUM_NAMED else ""
        return (
            f"step {self.number}: the gradient of the {' and of the '.join(self.networks)} "
            f"is not finite, so this update is skipped; samples: "
            f"{', '.join(keys[:NUM_NAMED])}{more}"
        )


class FiniteWatch:
    """Find failed steps (`StepMetrics.failed_updates`), and count them in a row.

    The numbers of a step are copied to the host asynchronously, and are read when they have
    arrived: a few steps later on a GPU. Gradients are averaged over ranks, so every rank reads the
    same values.

    Args:
        limit: number of failed steps in a row that ends the training.

    Attributes:
        failure: why the training must end, or None.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.failure: str | None = None
        self._under_way: deque[tuple[int, Arriving]] = deque()

    def add(self, number: int, metrics: StepMetrics) -> None:
        """Record the step after which `state.step` is `number`, without synchronization."""
        norms = (metrics.discriminator_gradient_norm, metrics.generator_gradient_norm)
        values = torch.stack([metrics.failed_updates.float(), *norms])
        self._under_way.append((number, Arriving(values)))

    def failed(self, wait: bool = False) -> list[FailedStep]:
        """Return the failed steps among those that have arrived since the last call.

        Args:
            wait: whether to wait for all of them; every rank then has the same steps.
        """
        found = []
        while self._under_way and (wait or self._under_way[0][1].are_here):
            number, values = self._under_way.popleft()
            failed, *norms = values.read()
            self.in_a_row = self.in_a_row + 1 if failed else 0
            if failed:
                names = zip(("discriminator", "generator"), norms, strict=True)
                networks = tuple(name for name, norm in names if not math.isfinite(norm))
                found.append(FailedStep(number, networks))
            if self.in_a_row >= self.limit and self.failure is None:
                self.failure = (
                    f"{self.limit} steps in a row, up to step {number}, were not finite: the "
                    "training has diverged, and nothing is saved of these. metrics.jsonl names "
                    "their samples. Try --precision no, or a new --run_dir with a lower "
                    "--learning_rate"
                )
        return found
