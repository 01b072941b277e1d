"""The training loop: step, report, evaluate, save. The same command resumes where it stopped."""

import enum
import os
import time
from contextlib import AbstractContextManager
from functools import partial

from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch, TrainMicroBatches, train_side
from pix2pix.data.preflight import check_free_disk, check_training
from pix2pix.data.stream import BatchStream
from pix2pix.errors import StorageError
from pix2pix.run.agreement import Agreement
from pix2pix.run.checkpoint import Checkpointer
from pix2pix.run.claim import WAIT_SECONDS, WriterClaim
from pix2pix.run.devices import set_training_flags
from pix2pix.run.distributed import Distributed
from pix2pix.run.launcher import compile_options
from pix2pix.run.run_directory import RunDirectory, config_hash
from pix2pix.run.state import build_state
from pix2pix.run.supply import Supply, TrainingNeeds, open_readers
from pix2pix.system.machine import keep_all_freed_memory
from pix2pix.system.signals import StopRequest
from pix2pix.training.advice import advise_on_batch, say_first
from pix2pix.training.board import machine_of
from pix2pix.training.log import RunLog
from pix2pix.training.memory import enough_memory
from pix2pix.training.profile import StepProfile
from pix2pix.training.reports import Reports
from pix2pix.training.start import restore_or_start
from pix2pix.training.step import AdversarialStep
from pix2pix.training.stops import Stops
from pix2pix.training.watch import FiniteWatch


class Outcome(enum.Enum):
    """How a call of fit() ended."""

    FINISHED = "finished"
    ALREADY_FINISHED = "already finished"
    STOPPED = "stopped"  # saved; the same command goes on


class Trainer:
    """One training in one run directory. To create it checks everything and loads the state.

    Every rank creates one and calls `fit`. A mistake of the user is the same UserError on every
    rank.

    Args:
        config: the settings, from flags.
        distributed: the processes of the training.
        stop_request: of a caller that listens for signals already; None listens during `fit`.
    """

    def __init__(
        self,
        config: TrainConfig,
        distributed: Distributed,
        stop_request: StopRequest | None = None,
    ) -> None:
        self.started = time.monotonic()
        self.distributed = distributed
        self.precision = say_first(config, distributed)
        self.train, self.validation = open_readers(config, distributed)
        world_size, on_cpu = distributed.world_size, distributed.device.type == "cpu"
        if on_cpu:
            keep_all_freed_memory()
        self.config = config = check_training(config, self.train.data_sets, world_size, on_cpu)
        self.total_steps = config.total_steps or 0
        self.batch_per_rank = config.batch_per_rank(world_size)
        advise_on_batch(config, self.batch_per_rank, distributed)
        self.stop_request = stop_request or StopRequest()
        self.stops = Stops(config, self.stop_request, self.started)

        self.run = RunDirectory(config.run_dir)
        self.writer = WriterClaim(config.run_dir)
        # The other ranks wait for rank 0 meanwhile, within the time-out of a collective.
        patience = min(WAIT_SECONDS, distributed.timeout.total_seconds() / 2)
        distributed.run_on_main(partial(self.writer.acquire, patience))
        try:
            self._load()
        except BaseException:
            self.writer.release()
            raise

    def _load(self) -> None:
        """Claim the run directory and load the newest state."""
        config, distributed = self.config, self.distributed
        claim = partial(self.run.claim, config, self.train.digest)
        for change in distributed.run_on_main(claim):
            distributed.say(f"changed since the last start: {change}")
        self.state = build_state(config, distributed.device, fp16=self.precision == "fp16")
        identity = config_hash(config, self.train.digest)
        self.checkpointer = Checkpointer(
            self.run.checkpoints, config.keep_checkpoints, distributed, identity
        )
        distributed.run_on_main(partial(check_free_disk, self.run.root, self.state.num_bytes))
        with self._enough_memory():
            self.step = self._parallel_step()
        restore_or_start(config, self.state, self.checkpointer, distributed)
        self.saved_step = self.state.step
        self.stop_request.would_lose = self._would_lose
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
                self._open_log() as log,
                self._open_supply() as self.supply,
                self._open_stream() as self.stream,
                self._open_profile(log) as self.profile,
                self._enough_memory(),
            ):
                self.reports = Reports(
                    self.config,
                    self.state,
                    self.distributed,
                    self.train,
                    self.validation,
                    self.stream,
                    log,
                )
                self._train()
            return self._conclude()

    def _train(self) -> None:
        num_micro_batches = self.config.grad_accumulation_steps
        window = self.reports.window
        stop = self.stops.at_start(self.stream, self.distributed)
        while self.state.step < self.total_steps and not stop:
            metrics = self.step([self.stream.next() for _ in range(num_micro_batches)])
            window.add(metrics)
            self.numbers.add(self.state.step, metrics)
            self._log_arrived()
            lacks = self.supply.lacks_soon(self.state.step)
            flags = self._should_stop(), bool(self._failure()), lacks
            stop, failed, short = self.agreement.exchange(self.state.step, *flags)
            if failed:
                self._log_arrived(wait=True)
                self.distributed.raise_on_all_ranks(self._failure())
            if short and not stop:
                self.stream.seconds_waited += self.supply.wait_for_step(self.state.step)
            self._after_step()
        self.writer.ending()
        with window.paused("checkpoints"):
            if self.saved_step != self.state.step:
                self._save()
            self.checkpointer.wait()

    def _after_step(self) -> None:
        """Do whatever is due after this step: scalars, pictures, evaluation, checkpoint."""
        config, reports = self.config, self.reports
        reports.step_done()
        if self._due(config.log_every):
            reports.scalars(self.supply.figures())
        pauses = (
            ("pictures", config.sample_every, reports.sample_pictures),
            ("evaluation", config.evaluate_every, self._evaluate),
            ("checkpoints", config.checkpoint_every, self._save_unless_failing),
        )
        for name, every, work in pauses:
            if self._due(every):
                with reports.window.paused(name):
                    work()
        with reports.log.courtesy.of("the profile"):
            self.profile.advance(self.state.step)

    def _enough_memory(self) -> AbstractContextManager[None]:
        return enough_memory(
            self.config, self.batch_per_rank, self.precision, self.distributed.device
        )

    def _would_lose(self) -> str:
        durable = self.checkpointer.durable_step
        return f"the {self.state.step - durable} steps since step {durable}"

    def _due(self, every: int) -> bool:
        """Return True every `every` steps, and at the end; 0 means only at the end."""
        last = self.state.step == self.total_steps
        return last or (every > 0 and self.state.step % every == 0)

    def _should_stop(self) -> bool:
        """Return True if this rank was told to stop."""
        stop = self.stops.due(self.stream)
        if stop:
            self.writer.ending()
        return stop

    def _failure(self) -> str | None:
        """Return what this rank knows that must end the training, without another checkpoint."""
        return self.stream.broken or self.supply.failure or self.numbers.failure or self.writer.lost

    def _log_arrived(self, wait: bool = False) -> None:
        """Log failed steps and means that have arrived from the device; wait: for all of them."""
        for failed in self.numbers.failed(wait):
            self.reports.failed_step(failed)
        self.reports.write_scalars(wait)

    def _evaluate(self) -> None:
        if self.validation is None:
            return
        self.supply.wait(self.supply.needs.lacks_rest)
        try:
            self.reports.evaluation(self.validation)
        except StorageError as error:  # on every rank: all stop, and save what there is
            self.stops.storage_error = str(error)

    def _save_unless_failing(self) -> None:
        """Save, but let no training that may be diverging push out the last good checkpoint."""
        self._log_arrived(wait=True)
        if self.numbers.in_a_row == 0:
            self._save()

    def _save(self) -> None:
        self._log_arrived(wait=True)
        self.distributed.raise_on_all_ranks(self._failure())  # never save what it has touched
        self.saved_step = self.state.step
        self.checkpointer.save(self.state, self.state.step * self.config.global_batch)

    def _parallel_step(self) -> AdversarialStep:
        set_training_flags()
        networks = (self.state.generator, self.state.discriminator)
        if self.config.compile:
            options = compile_options(os.environ)
            for network in networks:
                network.compile(**options)  # in place: names in the state stay as they are
        compression = self.config.gradient_compression
        generator, discriminator = (
            self.distributed.parallel(network, compression) for network in networks
        )
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
        steps = 2 * self.agreement.every
        needs = TrainingNeeds(self.train, self.config, self.validation, self.state.step, steps)
        return Supply(needs, self.distributed, self.agreement, self.stops.is_asked_for)

    def _open_stream(self) -> BatchStream:
        self.supply.wait_for_step(self.state.step)  # before the first step's collective
        micro_batches = TrainMicroBatches(
            self.train, self.config, self.distributed.rank, self.distributed.world_size
        )
        per_step = self.config.grad_accumulation_steps
        numbers = range(self.state.step * per_step, self.total_steps * per_step)
        workers = self.distributed.loader_workers(self.config.num_workers)
        # What one rank knows is known to all two exchanges later.
        ahead = 2 * self.agreement.every * per_step
        return BatchStream(
            micro_batches, numbers, self.distributed.device, workers, look_ahead=ahead
        )

    def _open_log(self) -> RunLog:
        if self.validation is None:
            self.distributed.say("the shards have no val split: no evaluation, pictures of train")
        machine = machine_of(self.distributed, self.precision)
        is_main = self.distributed.is_main
        return RunLog(self.run, self.config, machine, self.state.step, active=is_main)

    def _open_profile(self, log: RunLog) -> StepProfile:
        rank, device = self.distributed.rank, self.distributed.device
        return StepProfile(self.config.profile, self.run.profile, rank, device, log.line)

    def _conclude(self) -> Outcome:
        step = self.state.step
        if step < self.total_steps:
            self.distributed.advise(self.stops.conclude(step, self.distributed))
            return Outcome.STOPPED
        self.distributed.say(f"finished at step {step}: {self.run.root}")
        return Outcome.FINISHED
