"""Trainer.fit(): step, log, evaluate, checkpoint. Run again, it goes on where it stopped."""

import enum
import time
from functools import partial

import torch

from pix2pix.cli.help import wrap
from pix2pix.config import TrainConfig
from pix2pix.data.batches import (
    Batch,
    EvaluationBatches,
    TrainMicroBatches,
    global_batch_keys,
    resize,
    train_side,
)
from pix2pix.data.preflight import check_free_disk, check_training
from pix2pix.data.stream import BatchStream
from pix2pix.evaluation.evaluation import colorize_batch, evaluate, evaluation_mode
from pix2pix.model.color import ColorSpace
from pix2pix.run.checkpoint import Checkpointer, restore_networks
from pix2pix.run.claim import WAIT_SECONDS, WriterClaim
from pix2pix.run.distributed import Agreement, Distributed
from pix2pix.run.run_directory import RunDirectory, config_hash
from pix2pix.run.state import build_state
from pix2pix.run.supply import Supply, TrainingNeeds, open_readers
from pix2pix.system.machine import keep_all_freed_memory
from pix2pix.system.signals import StopRequest
from pix2pix.training.board import machine_of
from pix2pix.training.log import RunLog, peak_memory_gib
from pix2pix.training.profile import StepProfile
from pix2pix.training.step import AdversarialStep, default_precision
from pix2pix.training.watch import FailedStep, FiniteWatch, MeanWindow

NUM_SAMPLE_PICTURES = 8
NUM_NAMED = 4  # samples of a failed step that its line names; metrics.jsonl has them all


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
        self.precision = config.precision or default_precision(distributed.device)
        distributed.say(
            f"training on {distributed.world_size} × {distributed.device_name}, "
            f"precision {self.precision if self.precision != 'no' else 'fp32'}"
        )
        self.train, self.validation = open_readers(config, distributed)
        world_size, on_cpu = distributed.world_size, distributed.device.type == "cpu"
        if on_cpu:
            keep_all_freed_memory()
        self.config = config = check_training(config, self.train.data_sets, world_size, on_cpu)
        self.total_steps = config.total_steps or 0
        self.batch_per_rank = config.batch_per_rank(world_size)
        self.stop_request = stop_request or StopRequest()

        self.run = RunDirectory(config.run_dir)
        self.writer = WriterClaim(config.run_dir)
        # The other ranks wait for this one, and not for ever.
        patience = min(WAIT_SECONDS, distributed.timeout.total_seconds() / 2)
        distributed.run_on_main(partial(self.writer.acquire, patience))
        try:
            self._load()
        except BaseException:
            self.writer.release()
            raise

    def _load(self) -> None:
        """Make the run directory ours and take up the training where it stands."""
        config, distributed = self.config, self.distributed
        claim = partial(self.run.claim, config, self.train.digest)
        for change in distributed.run_on_main(claim):
            distributed.say(f"changed since the last start: {change}")
        self.color_space = ColorSpace(config.color_space)
        self.state = build_state(config, distributed.device, fp16=self.precision == "fp16")
        identity = config_hash(config, self.train.digest)
        self.checkpointer = Checkpointer(
            self.run.checkpoints, config.keep_checkpoints, distributed, identity
        )
        distributed.run_on_main(partial(check_free_disk, self.run.root, self.state.num_bytes))
        self.step = self._parallel_step()
        self._restore()
        self.saved_step = self.state.step
        self.numbers = FiniteWatch(config.max_skipped_steps)
        self.agreement = Agreement(distributed)

    def fit(self) -> Outcome:
        """Train to `total_steps`, or until a signal or the time limit says stop."""
        with self.writer:
            if self.state.step >= self.total_steps:
                step = self.state.step
                self.distributed.say(f"this run is finished (step {step}): nothing to do")
                return Outcome.ALREADY_FINISHED
            with (
                self.stop_request.listening(),
                self._open_log() as self.log,
                self._open_supply() as self.supply,
                self._open_stream() as self.stream,
                self._open_profile() as self.profile,
            ):
                self._train()
            return self._conclude()

    def _train(self) -> None:
        num_micro_batches = self.config.grad_accumulation_steps
        self.window = MeanWindow(self.stream)
        stop = False
        while self.state.step < self.total_steps and not stop:
            metrics = self.step([self.stream.next() for _ in range(num_micro_batches)])
            self.window.add(metrics)
            self.numbers.add(self.state.step, metrics)
            self._log_failed_steps()
            lacks = self.supply.lacks(self.state.step + 1)
            flags = self._should_stop(), bool(self._failure()), lacks
            stop, failed, short = self.agreement.exchange(*flags)
            if failed:
                self.distributed.raise_on_all_ranks(self._failure())
            if short and not stop:
                self.stream.seconds_waited += self.supply.wait_for_step(self.state.step)
            self._report()
        self.writer.ending()
        with self.window.paused("checkpoints"):
            if self.saved_step != self.state.step:
                self._save()
            self.checkpointer.wait()

    def _report(self) -> None:
        """Whatever is due after this step: scalars, pictures, evaluation, checkpoint."""
        config = self.config
        self.log.advance()
        if self._due(config.log_every):
            self._log_scalars()
        pauses = (
            ("pictures", config.sample_every, self._draw_samples),
            ("evaluation", config.evaluate_every, self._evaluate),
            ("checkpoints", config.checkpoint_every, self._save_unless_failing),
        )
        for name, every, work in pauses:
            if self._due(every):
                with self.window.paused(name):
                    work()
        self.profile.advance(self.state.step)

    def _due(self, every: int) -> bool:
        """Every `every` steps, and at the end; 0 means only at the end."""
        last = self.state.step == self.total_steps
        return last or (every > 0 and self.state.step % every == 0)

    def _should_stop(self) -> bool:
        """Whether this rank was told to stop."""
        limit = self.config.time_limit_minutes
        late = limit is not None and time.monotonic() - self.started >= 60 * limit
        stop = late or self.stop_request.received is not None
        if stop:
            self.writer.ending()
        return stop

    def _failure(self) -> str | None:
        """What this rank knows that must end the training, without another checkpoint."""
        return self.stream.broken or self.supply.failure or self.numbers.failure or self.writer.lost

    def _log_failed_steps(self, wait: bool = False) -> None:
        for failed in self.numbers.failed(wait):
            if self.distributed.is_main:
                self._log_failed(failed)

    def _log_failed(self, failed: FailedStep) -> None:
        keys = global_batch_keys(self.train, self.config, failed.number - 1)
        self.log.record(failed.number, {"skipped": failed.networks, "samples": keys})
        more = f" and {len(keys) - NUM_NAMED} more" if len(keys) > NUM_NAMED else ""
        self.log.line(
            wrap(
                f"step {failed.number}: the gradient of the {' and of the '.join(failed.networks)} "
                f"is not finite, so this update is skipped; samples: "
                f"{', '.join(keys[:NUM_NAMED])}{more}"
            )
        )

    def _log_scalars(self) -> None:
        step, config = self.state.step, self.config
        values, steps_per_second = self.window.close(self.distributed)
        values["optimizer/learning_rate"] = config.learning_rate_at(step - 1)
        values["speed/samples_per_second"] = steps_per_second * config.global_batch
        values |= self.supply.figures()
        values["memory/peak_gib"] = peak_memory_gib(self.distributed.device)
        with self.window.timed("logging"):
            self.log.scalars(step, values)
        l1, real, fake = (
            values[tag] for tag in ("loss/generator_l1", "discriminator/real", "discriminator/fake")
        )
        waited = values["speed/share_waited_for_data"]
        self.log.postfix(f"L1 {l1:.3f}, D {real:.2f}/{fake:.2f}, data {waited:.0%}")

    def _draw_samples(self) -> None:
        """Fixed photographs as gray | colorized | truth; rank 0 alone, no collective inside."""
        if not self.distributed.is_main:
            return
        reader = self.validation or self.train
        batch = EvaluationBatches(reader, 0, 1, NUM_SAMPLE_PICTURES)[0].to(self.distributed.device)
        gray, color = (resize(p, self.config.image_size) for p in (batch.gray, batch.color))
        with evaluation_mode(self.state.eval_generator) as generator:
            rgb = colorize_batch(generator, self.color_space, gray)
        columns = [gray.expand(-1, 3, -1, -1).float() / 255, rgb, color.float() / 255]
        self.log.picture(self.state.step, torch.stack(columns, dim=1))

    def _evaluate(self) -> None:
        if self.validation is None:
            return
        self.supply.wait(self.supply.needs.lacks_rest)
        self.distributed.broadcast_buffers(self.state.eval_generator)
        with evaluation_mode(self.state.eval_generator) as generator:
            predict = partial(colorize_batch, generator, self.color_space)
            means = evaluate(
                {"colorized": predict},
                self.validation,
                self.config.image_size,
                self.distributed,
                num_workers=self.config.num_workers,
            )
        values = means["colorized"]
        self.log.scalars(self.state.step, {f"evaluation/{k}": v for k, v in values.items()})
        self.log.line(
            f"step {self.state.step}: PSNR {values['psnr']:.2f} dB, colorfulness "
            f"{values['colorfulness']:.1f} (truth {values['colorfulness_truth']:.1f})"
        )

    def _save_unless_failing(self) -> None:
        """Save, but let no training that may be diverging push out the last good checkpoint."""
        self._log_failed_steps(wait=True)
        if self.numbers.in_a_row == 0:
            self._save()

    def _save(self) -> None:
        self._log_failed_steps(wait=True)
        self.distributed.raise_on_all_ranks(self._failure())  # never save what it has touched
        self.saved_step = self.state.step
        self.checkpointer.save(self.state, self.state.step * self.config.global_batch)

    def _restore(self) -> None:
        newest, init_from = self.checkpointer.restore(self.state), self.config.init_from
        if newest is not None:
            self.distributed.say(f"going on from step {self.state.step} ({newest})")
        elif init_from is not None:
            source = restore_networks(init_from, self.config, self.state, self.distributed)
            self.distributed.say(f"starting from the weights of {source}")

    def _parallel_step(self) -> AdversarialStep:
        networks = (self.state.generator, self.state.discriminator)
        if self.config.compile:
            for network in networks:
                network.compile()  # in place: names in the state stay as they are
        generator, discriminator = map(self.distributed.parallel, networks)
        step = AdversarialStep(
            self.config,
            self.state,
            generator,
            discriminator,
            self.precision,
            self.distributed.rank,
        )
        if self.distributed.world_size > 1:
            blank = Batch.blank(self.batch_per_rank, train_side(self.train))
            step.warm_up(blank.to(self.distributed.device))
        return step

    def _open_supply(self) -> Supply:
        needs = TrainingNeeds(self.train, self.config, self.validation, self.state.step)
        return Supply(needs, self.distributed, self.agreement, self._should_stop)

    def _open_stream(self) -> BatchStream:
        self.supply.wait_for_step(self.state.step)  # before the first step's collective
        micro_batches = TrainMicroBatches(
            self.train, self.config, self.distributed.rank, self.distributed.world_size
        )
        per_step = self.config.grad_accumulation_steps
        numbers = range(self.state.step * per_step, self.total_steps * per_step)
        workers = self.distributed.loader_workers(self.config.num_workers)
        return BatchStream(micro_batches, numbers, self.distributed.device, workers)

    def _open_log(self) -> RunLog:
        if self.validation is None:
            self.distributed.say("the shards have no val split: no evaluation, pictures of train")
        machine = machine_of(self.distributed, self.precision)
        is_main = self.distributed.is_main
        return RunLog(self.run, self.config, machine, self.state.step, active=is_main)

    def _open_profile(self) -> StepProfile:
        rank, device = self.distributed.rank, self.distributed.device
        return StepProfile(self.config.profile, self.run.profile, rank, device, self.log.line)

    def _conclude(self) -> Outcome:
        step = self.state.step
        if step < self.total_steps:
            self.distributed.say(f"stopped and saved at step {step}; the same command goes on")
            return Outcome.STOPPED
        self.distributed.say(f"finished at step {step}: {self.run.root}")
        return Outcome.FINISHED
