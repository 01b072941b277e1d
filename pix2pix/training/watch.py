"""What the steps since the last log measured: their means, and which of them were not finite.

Both wait for the device only where something is logged or saved anyway.
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


class MeanWindow:
    """Means of the steps since the last log, kept on the device until then.

    seconds: what each part beside the steps has taken since the start of the training.
    """

    def __init__(self, stream: BatchStream) -> None:
        self.stream = stream
        self.seconds: dict[str, float] = defaultdict(float)
        self.total: Tensor | None = None
        self.steps = 0
        self._restart()

    def add(self, metrics: StepMetrics) -> None:
        """One more step; no synchronization."""
        values = metrics.stacked()
        self.total = values if self.total is None else self.total + values
        self.steps += 1

    def close(self, distributed: Distributed) -> tuple[dict[str, float], float]:
        """Means over steps and ranks by tag, and steps per second; then begin anew."""
        assert self.total is not None
        waited = self.stream.seconds_waited - self.waited_before
        vector = torch.cat([self.total / self.steps, self.total.new_tensor([waited])])
        values = distributed.mean(vector).tolist()  # waits for the device: what logging costs
        seconds = time.perf_counter() - self.since
        means = {
            TAGS[name]: value for name, value in zip(StepMetrics.names(), values, strict=False)
        }
        means["speed/share_waited_for_data"] = values[-1] / seconds
        rate = self.steps / seconds
        self._restart()
        return means, rate

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """What happens inside counts as `part`."""
        begun = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - begun

    @contextlib.contextmanager
    def paused(self, part: str) -> Iterator[None]:
        """What happens inside counts as `part`, and not as training time."""
        if self.stream.device.type == "cuda":
            torch.cuda.synchronize(self.stream.device)  # the steps until here are training time
        before = self.seconds[part]
        with self.timed(part):
            yield
        self.since += self.seconds[part] - before

    def _restart(self) -> None:
        self.total, self.steps = None, 0
        self.since = time.perf_counter()
        self.waited_before = self.stream.seconds_waited


class FailedStep(NamedTuple):
    """A step that left a network as it was, because its numbers were not finite."""

    number: int  # `state.step` after it, as logs and checkpoints count
    networks: tuple[str, ...]

    def described(self, keys: Sequence[str]) -> str:
        """A line about it; keys: of its samples."""
        more = f" and {len(keys) - NUM_NAMED} more" if len(keys) > NUM_NAMED else ""
        return (
            f"step {self.number}: the gradient of the {' and of the '.join(self.networks)} "
            f"is not finite, so this update is skipped; samples: "
            f"{', '.join(keys[:NUM_NAMED])}{more}"
        )


class FiniteWatch:
    """Which steps failed (`StepMetrics.failed_updates`), and how many in a row up to the last.

    The numbers of a step travel to the host behind its work, and are read when they have arrived:
    a few steps later on a GPU. Gradients are averaged over ranks, so every rank reads the same.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0
        self.failure: str | None = None  # why the training must end
        self._under_way: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, number: int, metrics: StepMetrics) -> None:
        """Note the step after which `state.step` is `number`; no synchronization."""
        norms = (metrics.discriminator_gradient_norm, metrics.generator_gradient_norm)
        values = torch.stack([metrics.failed_updates.float(), *norms])
        event = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)  # torch takes pinned memory for it
            event = torch.cuda.Event()
            event.record()
        self._under_way.append((number, values, event))

    def failed(self, wait: bool = False) -> list[FailedStep]:
        """The failed steps among those that arrived since the last call.

        wait: for all of them to arrive; then every rank stands at the same step.
        """
        found = []
        while self._under_way and (wait or _arrived(self._under_way[0][2])):
            number, values, event = self._under_way.popleft()
            if event is not None:
                event.synchronize()
            failed, *norms = values.tolist()
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


def _arrived(event: torch.cuda.Event | None) -> bool:
    return event is None or event.query()
