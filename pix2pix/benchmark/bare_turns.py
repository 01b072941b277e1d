"""A training and its own step alone, by turns: the bare step runs between two of the training.

So both meet the same busy machine, and the training runs through from start to end.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pix2pix.benchmark.rounds import wait_for
from pix2pix.benchmark.training import first_batch, quietly
from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch
from pix2pix.run.distributed import Distributed
from pix2pix.training.step import AdversarialStep, StepMetrics
from pix2pix.training.trainer import Trainer

PAUSES = ("pictures", "evaluation", "checkpoints")  # parts of a training beside its steps


class BareStep:
    """The step of a second trainer, which never trains, on the first batch of the training."""

    def __init__(self, config: TrainConfig, distributed: Distributed, seconds_per_turn: float):
        self.config = config
        self.distributed = distributed
        self.seconds_per_turn = seconds_per_turn
        self.turns: list[float] = []  # seconds per step

    @cached_property
    def seconds(self) -> float:
        """Of one step, roughly; compiled and warm from then on."""
        self._run(1)
        return self._run(1)

    def take_turn(self) -> None:
        """Step for about `seconds_per_turn`, after one step in the caches that the other left."""
        self._run(1)
        self.turns.append(self._run(max(1, round(self.seconds_per_turn / self.seconds))))

    @cached_property
    def _parts(self) -> tuple[AdversarialStep, Batch]:
        apart = replace(self.config, run_dir=self.config.run_dir.with_name("bare"))
        with quietly():
            trainer = Trainer(apart, self.distributed)
        trainer.writer.release()
        return trainer.step, first_batch(trainer)

    def _run(self, steps: int) -> float:
        step, batch = self._parts
        wait_for(self.distributed.device)
        started = time.perf_counter()
        for _ in range(steps):
            step([batch])
        wait_for(self.distributed.device)
        return (time.perf_counter() - started) / steps


@dataclass(frozen=True)
class Plan:
    """How long the training is and how its steps are shared out.

    After its first step come `rounds` times `unmeasured` steps and `measured` ones. The loader had
    time to prepare the former while the bare step had its turn.
    """

    total_steps: int
    rounds: int
    unmeasured: int
    measured: int

    @classmethod
    def of_turns(cls, rounds: int, unmeasured: int, measured: int) -> "Plan":
        """As long as its turns take, and a last step, which shows when the last of them ended."""
        return cls(rounds * (unmeasured + measured) + 2, rounds, unmeasured, measured)

    @classmethod
    def of_steps(cls, total_steps: int, rounds: int, unmeasured: int) -> "Plan":
        """Share a given number of steps; `measured` is below 1 where they are too few."""
        return cls(total_steps, rounds, unmeasured, (total_steps - 2) // rounds - unmeasured)


class Turns:
    """Stands in for the step of `trainer`, and lets the bare one have its turn when it is due.

    turns: seconds per step of the training, a value per round, with what belongs to a step (data,
        logging) and without pictures, evaluation and checkpoints.
    """

    def __init__(self, trainer: Trainer, bare: BareStep, plan: Plan) -> None:
        self.trainer = trainer
        self.step = trainer.step
        self.bare = bare
        self.plan = plan
        self.calls = 0
        self.turns: list[float] = []
        self.seconds_measured = self.seconds_waited = 0.0  # in all turns; for data
        self.seconds_apart = 0.0  # of the bare step
        self.first_step_at = self.first_step_seconds = 0.0
        self._opened = (0.0, 0.0)

    def __call__(self, micro_batches: Sequence[Batch]) -> StepMetrics:
        """One step of the training, after whatever is due before it."""
        if self.calls:
            self._change_sides()
        started = time.perf_counter()
        metrics = self.step(micro_batches)
        if self.calls == 0:
            wait_for(self.trainer.distributed.device)
            self.first_step_at, self.first_step_seconds = started, time.perf_counter() - started
        self.calls += 1
        return metrics

    def _change_sides(self) -> None:
        plan = self.plan
        number, position = divmod(self.calls - 1, plan.unmeasured + plan.measured)
        if position == 0 and 0 < number <= plan.rounds:
            elapsed, waited = (
                now - then for now, then in zip(self._clock(), self._opened, strict=True)
            )
            self.turns.append(elapsed / plan.measured)
            self.seconds_measured += elapsed
            self.seconds_waited += waited
        if number >= plan.rounds:
            return
        if position == 0:
            started = time.perf_counter()
            wait_for(self.trainer.distributed.device)
            self.bare.take_turn()
            self.seconds_apart += time.perf_counter() - started
        if position == plan.unmeasured:
            self._opened = self._clock()

    def _clock(self) -> tuple[float, float]:
        """Seconds of training steps, and of these waited for data, up to now."""
        wait_for(self.trainer.distributed.device)
        paused = sum(self.trainer.window.seconds[part] for part in PAUSES)
        elapsed = time.perf_counter() - paused
        return elapsed, self.trainer.stream.seconds_waited
