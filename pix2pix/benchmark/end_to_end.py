"""How fast a whole training is: Trainer.fit() beside its own step on one batch in memory."""

import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pix2pix.benchmark.bare_turns import PAUSES, BareStep, Plan, Turns
from pix2pix.benchmark.options import EndToEndOptions
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.rounds import Timing
from pix2pix.benchmark.training import configure, prepare_shards, quietly
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.distributed import Distributed
from pix2pix.training.step import default_precision
from pix2pix.training.trainer import Outcome, Trainer

_BATCH = {"cpu": 8}  # elsewhere the training's own default
_PREFETCHED = 4  # batches that each loader worker holds ready


def measure(options: EndToEndOptions, distributed: Distributed, seconds_before: float) -> Figures:
    """Figures of one training from start to end, in a folder that is removed afterwards.

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
    plan = _plan(options, config, bare)
    began = time.perf_counter()
    with quietly():
        trainer = Trainer(replace(config, total_steps=plan.total_steps), distributed)
        turns = Turns(trainer, bare, plan)
        trainer.step = turns  # type: ignore[assignment]
        if trainer.fit() is not Outcome.FINISHED:
            raise KeyboardInterrupt  # it has heard the signal; half a training has no figures
    total = seconds_before + time.perf_counter() - began - turns.seconds_apart
    precision = config.precision or default_precision(distributed.device)
    return {
        **rates(config.global_batch, turns, Timing(tuple(bare.turns))),
        **parts(total, seconds_before + turns.first_step_at - began, turns),
        **(_quality(trainer) if options.num_samples else {}),
        "num_samples": plan.total_steps * config.global_batch,
        "num_train_photos": trainer.train.num_samples,
        "num_val_photos": trainer.validation.num_samples if trainer.validation else 0,
        "batch_size": config.global_batch,
        "image_size": config.image_size,
        "width": config.generator_width,
        "precision": precision,
        "compiled": str(config.compile).lower(),
        "num_workers": distributed.loader_workers(config.num_workers),
        "threads": torch.get_num_threads(),
    }


def _plan(options: EndToEndOptions, config: TrainConfig, bare: BareStep) -> Plan:
    workers = bare.distributed.loader_workers(config.num_workers)
    unmeasured = max(1, _PREFETCHED * workers)
    if options.num_samples is None:
        measured = max(1, round(options.seconds_per_turn / bare.seconds))
        return Plan.of_turns(options.rounds, unmeasured, measured)
    steps = math.ceil(options.num_samples / config.global_batch)
    plan = Plan.of_steps(steps, options.rounds, unmeasured)
    if plan.measured < 1:
        least = config.global_batch * (options.rounds * (unmeasured + 1) + 2)
        raise UserError(
            f"--num_samples {options.num_samples} is too few for the turns; give "
            f"{least} or more, or fewer --rounds"
        )
    return plan


def rates(batch_size: int, turns: Turns, alone: Timing) -> Figures:
    """Photographs per second of the training's loop and of the bare step.

    `efficiency` is the median over the rounds of one rate over the other: the two turns of a round
    are neighbors in time, so a machine that is slower for a while slows down both.
    """
    fit = Timing(tuple(turns.turns))
    rounds = zip(alone.seconds, fit.seconds, strict=True)
    return {
        "fit_samples_per_second": batch_size / fit.median,
        "step_samples_per_second": batch_size / alone.median,
        "efficiency": statistics.median(bare / ours for bare, ours in rounds),
        "fit_spread": fit.spread,
        "step_spread": alone.spread,
        "share_waited_for_data": turns.seconds_waited / turns.seconds_measured,
    }


def parts(total: float, start: float, turns: Turns) -> Figures:
    """Seconds of the whole training from the start of the program on, and of its parts.

    The parts add up to the total, and `logging_seconds` is a part of `loop_seconds`. The turns of
    the bare step are not in them.
    """
    spent = turns.trainer.window.seconds
    pauses = {f"{part}_seconds": spent[part] for part in PAUSES}
    loop = total - start - turns.first_step_seconds - sum(pauses.values())
    return {
        "total_seconds": total,
        "start_seconds": start,
        "first_step_seconds": turns.first_step_seconds,
        "loop_seconds": loop,
        "logging_seconds": spent["logging"],
        **pauses,
    }


def _quality(trainer: Trainer) -> Figures:
    """What the last evaluation found; nothing without a val split."""
    records = map(json.loads, trainer.run.metrics_file.read_text().splitlines())
    values = [record for record in records if "evaluation/psnr" in record]
    if not values:
        return {}
    return {
        "psnr_decibels": values[-1]["evaluation/psnr"],
        "colorfulness": values[-1]["evaluation/colorfulness"],
        "colorfulness_truth": values[-1]["evaluation/colorfulness_truth"],
    }
