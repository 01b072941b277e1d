"""Trainer.fit(): step, log, evaluate, checkpoint. Run again, it goes on where it stopped."""

import contextlib
import enum
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pix2pix.checkpoint import Checkpointer, restore_networks
from pix2pix.color import ColorSpace
from pix2pix.config import TrainConfig
from pix2pix.data import (
    Batch,
    BatchStream,
    EvaluationBatches,
    TrainSlices,
    resize,
)
from pix2pix.distributed import Agreement, Distributed
from pix2pix.errors import UserError
from pix2pix.evaluation import colorize_batch, evaluate, evaluation_mode
from pix2pix.log import RunLog, peak_memory_gib
from pix2pix.preflight import check_training, crop_size
from pix2pix.reader import ShardReader
from pix2pix.run_directory import RunDirectory
from pix2pix.shards import open_split, read_manifest
from pix2pix.state import build_state
from pix2pix.step import AdversarialStep, StepMetrics, default_precision
from pix2pix.stop import StopRequest

NUM_SAMPLE_PICTURES = 8
TAGS = {
    "discriminator_loss": "loss/discriminator",
    "generator_adversarial": "loss/generator_adversarial",
    "generator_l1": "loss/generator_l1",
    "real_score": "discriminator/real",
    "fake_score": "discriminator/fake",
    "discriminator_gradient_norm": "gradient_norm/discriminator",
    "generator_gradient_norm": "gradient_norm/generator",
    "skipped_updates": "gradient_norm/skipped_updates",
}


class Outcome(enum.Enum):
    """How a call of fit() ended."""

    FINISHED = "finished"
    ALREADY_FINISHED = "already finished"
    STOPPED = "stopped"  # saved; the same command goes on


class Trainer:
    """One training in one run directory; creating it checks everything and loads the state.

    Every rank creates it and calls `fit`. Raises UserError, the same on every rank, for whatever
    the user can mend.
    stop_request: of a caller who has listened for signals before; None begins with fit().
    """

    def __init__(
        self,
        config: TrainConfig,
        distributed: Distributed,
        stop_request: StopRequest | None = None,
    ) -> None:
        self.started = time.monotonic()
        self.distributed = distributed
        precision = config.precision or default_precision(distributed.device)
        distributed.say(
            f"training on {distributed.world_size} × {distributed.device_name}, "
            f"precision {precision if precision != 'no' else 'fp32'}"
        )
        self.train, self.validation = _open_readers(config.shards, distributed)
        world_size, on_cpu = distributed.world_size, distributed.device.type == "cpu"
        self.config = config = check_training(config, self.train.split, world_size, on_cpu)
        self.total_steps = config.total_steps or 0
        self.batch_per_rank = config.batch_per_rank(world_size)

        self.run = RunDirectory(config.run_dir)
        claim = partial(self.run.claim, config, self.train.split.digest)
        for change in distributed.on_main(claim):
            distributed.say(f"changed since the last start: {change}")
        self.color_space = ColorSpace(config.color_space)
        self.state = build_state(config, distributed.device, fp16=precision == "fp16")
        self.checkpointer = Checkpointer(self.run.checkpoints, config.keep_checkpoints, distributed)
        distributed.on_main(partial(check_free_disk, self.run.root, self.state.num_bytes))
        self.step = self._parallel_step(precision)
        self._restore()
        self.agreement = Agreement(distributed)
        self.stop_request = stop_request or StopRequest()

    def fit(self) -> Outcome:
        """Train to `total_steps`, or until a signal or the time limit says stop."""
        if self.state.step >= self.total_steps:
            self.distributed.say(f"this run is finished (step {self.state.step}): nothing to do")
            return Outcome.ALREADY_FINISHED
        with (
            self.stop_request.listening(),
            self._open_log() as self.log,
            self._open_stream() as self.stream,
        ):
            self.window = _Window(self.stream)
            stop = False
            while self.state.step < self.total_steps and not stop:
                slices = [self.stream.next() for _ in range(self.config.grad_accumulation_steps)]
                self.window.add(self.step(slices))
                broken = self.stream.broken
                stop, anywhere_broken = self.agreement.exchange(self._should_stop(), bool(broken))
                if anywhere_broken:
                    self.distributed.raise_together(broken)
                self._report()
            if not self._due(self.config.checkpoint_every):
                self._save()
            self.checkpointer.wait()
        return self._conclude()

    def _report(self) -> None:
        """Whatever is due after this step: scalars, pictures, evaluation, checkpoint."""
        self.log.advance()
        if self._due(self.config.log_every):
            self._log_scalars()
        with self.window.paused():
            if self._due(self.config.sample_every):
                self._draw_samples()
            if self._due(self.config.evaluate_every):
                self._evaluate()
            if self._due(self.config.checkpoint_every):
                self._save()

    def _due(self, every: int) -> bool:
        """Every `every` steps, and at the end; 0 means only at the end."""
        last = self.state.step == self.total_steps
        return last or (every > 0 and self.state.step % every == 0)

    def _should_stop(self) -> bool:
        limit = self.config.time_limit_minutes
        late = limit is not None and time.monotonic() - self.started >= 60 * limit
        return late or self.stop_request.received is not None

    def _log_scalars(self) -> None:
        step, config = self.state.step, self.config
        values, steps_per_second = self.window.close(self.distributed)
        values["optimizer/learning_rate"] = config.learning_rate_at(step - 1)
        values["speed/samples_per_second"] = steps_per_second * config.global_batch
        values["memory/peak_gib"] = peak_memory_gib(self.distributed.device)
        self.log.scalars(step, values)
        l1, real, fake = (
            values[tag] for tag in ("loss/generator_l1", "discriminator/real", "discriminator/fake")
        )
        self.log.postfix(f"L1 {l1:.3f}, D {real:.2f}/{fake:.2f}")

    def _draw_samples(self) -> None:
        """Fixed photographs as gray | colorized | truth; rank 0 alone, no collective inside."""
        if not self.distributed.is_main:
            return
        reader = self.validation or self.train
        batch = EvaluationBatches(reader, 0, 1, NUM_SAMPLE_PICTURES)[0].to(self.distributed.device)
        gray, color = (resize(p, self.config.image_size) for p in (batch.gray, batch.color))
        with evaluation_mode(self.state.best_generator) as generator:
            rgb = colorize_batch(generator, self.color_space, gray)
        columns = [gray.expand(-1, 3, -1, -1).float() / 255, rgb, color.float() / 255]
        self.log.picture(self.state.step, torch.stack(columns, dim=1))

    def _evaluate(self) -> None:
        if self.validation is None:
            return
        self.distributed.use_main_buffers(self.state.best_generator)
        with evaluation_mode(self.state.best_generator) as generator:
            predict = partial(colorize_batch, generator, self.color_space)
            size = self.config.image_size
            means = evaluate({"colorized": predict}, self.validation, size, self.distributed)
        values = means["colorized"]
        self.log.scalars(self.state.step, {f"evaluation/{k}": v for k, v in values.items()})
        self.log.line(
            f"step {self.state.step}: PSNR {values['psnr']:.2f} dB, colorfulness "
            f"{values['colorfulness']:.1f} (truth {values['colorfulness_truth']:.1f})"
        )

    def _save(self) -> None:
        self.distributed.raise_together(self.stream.broken)  # never save what it has touched
        self.checkpointer.save(self.state, self.state.step * self.config.global_batch)

    def _restore(self) -> None:
        newest = self.checkpointer.newest()
        if newest is not None:
            self.checkpointer.restore(newest, self.state)
            self.distributed.say(f"going on from step {self.state.step} ({newest})")
        elif self.config.init_from is not None:
            source = restore_networks(self.config.init_from, self.config, self.state)
            self.distributed.say(f"starting from the weights of {source}")

    def _parallel_step(self, precision: str) -> AdversarialStep:
        networks = (self.state.generator, self.state.discriminator)
        if self.config.compile:
            for network in networks:
                network.compile()  # in place: names in the state stay as they are
        generator, discriminator = map(self.distributed.parallel, networks)
        rank = self.distributed.rank
        step = AdversarialStep(self.config, self.state, generator, discriminator, precision, rank)
        if self.distributed.world_size > 1:
            blank = Batch.blank(self.batch_per_rank, crop_size(self.train.split.short_side))
            step.warm_up(blank.to(self.distributed.device))
        return step

    def _open_stream(self) -> BatchStream:
        slices = TrainSlices(
            self.train, self.config, self.distributed.rank, self.distributed.world_size
        )
        parts = self.config.grad_accumulation_steps
        numbers = range(self.state.step * parts, self.total_steps * parts)
        workers = self.distributed.loader_workers(self.config.num_workers)
        return BatchStream(slices, numbers, self.distributed.device, workers)

    def _open_log(self) -> RunLog:
        if self.validation is None:
            self.distributed.say("the shards have no val split: no evaluation, pictures of train")
        return RunLog(self.run, self.state.step, self.total_steps, active=self.distributed.is_main)

    def _conclude(self) -> Outcome:
        step = self.state.step
        if step < self.total_steps:
            self.distributed.say(f"stopped and saved at step {step}; the same command goes on")
            return Outcome.STOPPED
        self.distributed.say(f"finished at step {step}: {self.run.root}")
        return Outcome.FINISHED


class _Window:
    """Means of the steps since the last log, kept on the device until then."""

    def __init__(self, stream: BatchStream) -> None:
        self.stream = stream
        self.total: Tensor | None = None
        self.steps = 0
        self._restart()

    def add(self, metrics: StepMetrics) -> None:
        """One more step; no synchronisation."""
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
    def paused(self) -> Iterator[None]:
        """What happens inside does not count as training time."""
        begun = time.perf_counter()
        yield
        self.since += time.perf_counter() - begun

    def _restart(self) -> None:
        self.total, self.steps = None, 0
        self.since = time.perf_counter()
        self.waited_before = self.stream.seconds_waited


def _open_readers(root: Path, distributed: Distributed) -> tuple[ShardReader, ShardReader | None]:
    """Readers of the train split and, where there is one, of the val split."""
    train = distributed.on_main(lambda: open_split(root, "train"))
    has_validation = distributed.on_main(lambda: "val" in read_manifest(root).splits)
    if not has_validation:
        return ShardReader(root, train), None
    validation = distributed.on_main(lambda: open_split(root, "val"))
    return ShardReader(root, train), ShardReader(root, validation)


def check_free_disk(root: Path, num_bytes: int) -> None:
    """Raise UserError unless two checkpoints of `num_bytes` fit on the disk of `root`."""
    free = shutil.disk_usage(root).free
    if free < 2 * num_bytes:  # the next checkpoint is written before the last one goes
        raise UserError(
            f"{root} has {free / 2**30:.1f} GiB free, but two checkpoints need "
            f"{2 * num_bytes / 2**30:.1f} GiB; make room or choose another --run_dir"
        )
