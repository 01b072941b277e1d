"""How fast a whole training is: Trainer.fit() and its own step on one batch, by turns."""

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from pix2pix.benchmark.options import EndToEndOptions
from pix2pix.benchmark.report import Figures, spread
from pix2pix.benchmark.rounds import wait_for
from pix2pix.benchmark.training import configure, first_batch, prepare_shards, quietly
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.distributed import Distributed
from pix2pix.training.precision import default_precision
from pix2pix.training.trainer import Outcome, Trainer

_BATCH = {"cpu": 8}  # elsewhere the training's own default
_PREFETCHED = 4  # batches that each loader worker holds ready
PAUSES = ("pictures", "evaluation", "checkpoints")  # parts of a training beside its steps


def measure(options: EndToEndOptions, distributed: Distributed, seconds_before: float) -> Figures:
    """Return figures of trainings from start to end, in a folder that is removed afterwards.

    seconds_before: what this start has taken already, to import torch and find the device.
    Raises UserError where photographs, shards or recipe can't be used, and under a launcher.
    """
    if distributed.world_size > 1:
        raise UserError("end_to_end measures one process; benchmark.py scaling measures several")
    with TemporaryDirectory(prefix="end-to-end-") as name:
        folder = Path(name)
        config = _configure(options, folder, distributed.device)
        if options.shards is None:
            prepare_shards(options.photos, folder, config.image_size)
        figures = _train(options, config, distributed, seconds_before)
    return {**figures, "photos": str(options.photos or options.shards or "synthetic")}


def _configure(options: EndToEndOptions, folder: Path, device: torch.device) -> TrainConfig:
    batch_size = options.batch_size
    if batch_size is None and options.recipe is None:
        batch_size = _BATCH.get(device.type)
    config = configure(
        options.recipe,
        shards=(str(options.shards or folder / "shards"),),
        run_dir=folder / "run",
        global_batch=batch_size,
        image_size=options.image_size,
        generator_width=options.width,
        discriminator_width=options.width,
        precision=options.precision,
        compile=options.compile,
        num_workers=options.num_workers,
    )
    if config.grad_accumulation_steps > 1:
        raise UserError(
            "end_to_end measures steps of one micro-batch; no --grad_accumulation_steps"
        )
    return replace(config, epochs=None, total_steps=10**9)  # as long as it takes, said below


def _train(
    options: EndToEndOptions, config: TrainConfig, distributed: Distributed, seconds_before: float
) -> Figures:
    bare = BareStep(config, distributed, options.seconds_per_turn)
    length = _length(options, config, bare)
    fits, alone = [], []
    for number in range(options.rounds):
        alone.append(bare.take_turn())
        folder = config.run_dir.with_name(f"run-{number}")
        fits.append(Fit(replace(length.of(config), run_dir=folder), distributed))
    last = fits[-1]
    validation = last.trainer.validation
    pauses = last.trainer.reports.window.seconds
    return {
        **rates(config.global_batch, [fit.rate(length.unmeasured) for fit in fits], alone),
        **parts(seconds_before + last.seconds_to_start, last.seconds, pauses),
        **(last.quality() if options.num_samples else {}),
        "num_samples": length.total_steps * config.global_batch,
        "num_train_photos": last.trainer.train.num_samples,
        "num_val_photos": validation.num_samples if validation else 0,
        "batch_size": config.global_batch,
        "image_size": config.image_size,
        "width": config.generator_width,
        "precision": config.precision or default_precision(distributed.device),
        "compiled": str(config.compile).lower(),
        "num_workers": distributed.loader_workers(config.num_workers),
        "threads": torch.get_num_threads(),
    }


class BareStep:
    """The step of a trainer that never trains, on the first batch of the training.

    Args:
        config: of the training.
        distributed: of this process.
        seconds_per_turn: how long a turn lasts, roughly.
    """

    def __init__(self, config: TrainConfig, distributed: Distributed, seconds_per_turn: float):
        with quietly():
            trainer = Trainer(replace(config, run_dir=config.run_dir / "bare"), distributed)
        trainer.writer.release()
        self.device = distributed.device
        self.workers = distributed.loader_workers(config.num_workers)
        self.step, self.batch = trainer.step, first_batch(trainer)
        self._run(1)  # compiled and warm from then on
        self.seconds = self._run(1)  # of one step, roughly
        self.steps_per_turn = max(1, round(seconds_per_turn / self.seconds))

    def take_turn(self) -> float:
        """Return seconds per step, after one step in the caches that the training left."""
        self._run(1)
        return self._run(self.steps_per_turn)

    def _run(self, steps: int) -> float:
        wait_for(self.device)
        started = time.perf_counter()
        for _ in range(steps):
            self.step([self.batch])
        wait_for(self.device)
        return (time.perf_counter() - started) / steps


@dataclass(frozen=True)
class Length:
    """How long each training is: steps that are not measured, then those that are.

    The loader prepares batches for the former while the training starts.

    Args:
        unmeasured: a multiple of log_every.
        measured: another.
        log_every: steps between two records, which hold the training's own rate.
    """

    unmeasured: int
    measured: int
    log_every: int

    @property
    def total_steps(self) -> int:
        """Steps of each training."""
        return self.unmeasured + self.measured

    def of(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration of a training of this length."""
        return replace(config, total_steps=self.total_steps, log_every=self.log_every)


def _length(options: EndToEndOptions, config: TrainConfig, bare: BareStep) -> Length:
    ahead = 1 + _PREFETCHED * bare.workers
    steps = ahead + bare.steps_per_turn
    if options.num_samples is not None:
        steps = math.ceil(options.num_samples / config.global_batch)
        if steps <= ahead:
            raise UserError(
                f"--num_samples {options.num_samples} is too few to measure; give "
                f"{config.global_batch * (ahead + 1)} or more"
            )
    return length_of(steps, ahead, config.log_every)


def length_of(steps: int, ahead: int, most_between: int) -> Length:
    """Share steps out: records at most `most_between` apart, `ahead` or more before the first.

    The length is `steps`, or so much more that a whole number of records fits.
    """
    log_every = max(1, min(most_between, steps - ahead, max(ahead, steps // 10)))
    unmeasured = math.ceil(ahead / log_every) * log_every
    measured = max(1, math.ceil((steps - unmeasured) / log_every)) * log_every
    return Length(unmeasured, measured, log_every)


class Fit:
    """A training from start to end.

    Args:
        config: of it.
        distributed: of this process.

    Attributes:
        trainer: as it is at the end.
        seconds_to_start: to build the trainer.
        seconds: of `fit()`.
    """

    def __init__(self, config: TrainConfig, distributed: Distributed):
        began = time.perf_counter()
        with quietly(bars=True):
            self.trainer = Trainer(config, distributed)
            self.seconds_to_start = time.perf_counter() - began
            if self.trainer.fit() is not Outcome.FINISHED:
                raise KeyboardInterrupt  # it has heard the signal; half a training has no figures
        self.seconds = time.perf_counter() - began - self.seconds_to_start
        lines = self.trainer.run.metrics_file.read_text().splitlines()
        self.records: list[dict[str, float]] = [json.loads(line) for line in lines]

    def rate(self, unmeasured: int) -> "Rate":
        """Return what the training itself logged of the steps after the first `unmeasured`."""
        return rate_of([record for record in self.records if record["step"] > unmeasured])

    def quality(self) -> Figures:
        """Return what the last evaluation found; nothing without a val split."""
        values = [record for record in self.records if "evaluation/psnr" in record]
        if not values:
            return {}
        return {
            "psnr_decibels": values[-1]["evaluation/psnr"],
            "colorfulness": values[-1]["evaluation/colorfulness"],
            "colorfulness_truth": values[-1]["evaluation/colorfulness_truth"],
        }


class Rate(NamedTuple):
    """Photographs per second of a training's loop, and the share of time waited for data."""

    samples_per_second: float
    share_waited: float


def rate_of(records: Sequence[Mapping[str, float]]) -> Rate:
    """Return the rate of all records together, each of as many steps."""
    logged = [record for record in records if "speed/samples_per_second" in record]
    rates = [record["speed/samples_per_second"] for record in logged]
    times = [1 / rate for rate in rates]
    waited = (
        record["speed/share_waited_for_data"] * seconds
        for record, seconds in zip(logged, times, strict=True)
    )
    return Rate(statistics.harmonic_mean(rates), sum(waited) / sum(times))


def rates(batch_size: int, fits: Sequence[Rate], alone: Sequence[float]) -> Figures:
    """Return photographs per second of the training's loop and of the bare step.

    `efficiency` is the median over the rounds of one rate over the other: the two turns of a round
    are neighbors in time, so a machine that is slower for a while slows down both.

    Args:
        batch_size: photographs of a step.
        fits: of each round.
        alone: of each round, seconds of a bare step.
    """
    ours = [fit.samples_per_second for fit in fits]
    bare = [batch_size / seconds for seconds in alone]
    return {
        "fit_samples_per_second": statistics.median(ours),
        "step_samples_per_second": statistics.median(bare),
        "efficiency": statistics.median(one / other for one, other in zip(ours, bare, strict=True)),
        "fit_spread": spread(ours),
        "step_spread": spread(bare),
        "share_waited_for_data": statistics.median(fit.share_waited for fit in fits),
    }


def parts(start: float, fit: float, spent: Mapping[str, float]) -> Figures:
    """Return seconds of a whole training from the start of the program on, and of its parts.

    The parts add up to the total, and `logging_seconds` is a part of `loop_seconds`.
    """
    pauses = {f"{part}_seconds": spent[part] for part in PAUSES}
    return {
        "total_seconds": start + fit,
        "start_seconds": start,
        "loop_seconds": fit - sum(pauses.values()),
        "logging_seconds": spent["logging"],
        **pauses,
    }
