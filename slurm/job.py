"""The jobs, as they are pickled at submission and called on every rank."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pix2pix.config import TrainConfig
from pix2pix.errors import LostProcessError, UserError
from pix2pix.evaluation.report import EvaluateOptions
from pix2pix.run.run_directory import RunDirectory
from pix2pix.system.signals import StopRequest
from slurm.process_group import Member, join
from slurm.records import Records
from slurm.requeue import STOPPED, RequeueDecision, decide_on_job, requeue
from slurm.scheduler import SchedulerError
from slurm.snapshot import check_snapshot

COLLECTIVE_TIMEOUT_MINUTES = 10  # of an evaluation


@dataclass(frozen=True)
class TrainJob:
    """A training: every start of the job goes on where the last one stopped.

    snapshot: the code that it must run; None, whatever runs.
    """

    config: TrainConfig
    snapshot: Path | None = None

    def __call__(self) -> int:
        """Train on this rank. Returns, and under SLURM exits with, 0 or 75 as scripts/train.py."""
        member, records = Member.of(os.environ), Records(RunDirectory(self.config.run_dir).jobs)
        # Before the imports: they take a minute on a busy file system. Until it ends nobody but
        # SLURM kills this process, and submitit's handlers are out of the way.
        with StopRequest(patient=True).listening() as stop:
            with telling_errors(records, member):
                check_snapshot(self.snapshot)
                step, first_step, asked_to_stop = self._fit(member, records, stop)
            if member.rank > 0 or step is None:
                return 0
            return conclude(member, records, step, first_step, asked_to_stop)

    def _fit(
        self, member: Member, records: Records, stop: StopRequest
    ) -> tuple[int | None, int, bool]:
        """(step at which it was stopped or None, first step, a signal asked for it)."""
        with join(member, records.folder, self.config.collective_timeout_minutes) as distributed:
            import torch

            from pix2pix.training.trainer import Outcome, Trainer

            trainer = Trainer(self.config, distributed, stop)
            first_step = trainer.state.step
            attempt = {"job": member.job_id, "restarts": member.restarts}
            if distributed.is_main:
                where = {"nodes": member.num_nodes, "ranks": member.world_size}
                records.add("started", **attempt, step=first_step, **where)
            outcome = trainer.fit()
            if distributed.is_main:
                records.add("ended", **attempt, step=trainer.state.step, outcome=outcome.value)
            asked = torch.tensor(float(stop.received is not None), device=distributed.device)
            asked = distributed.sum(asked)  # a signal may have reached one rank alone
        stopped_at = trainer.state.step if outcome is Outcome.STOPPED else None
        return stopped_at, first_step, bool(asked)


@dataclass(frozen=True)
class EvaluateJob:
    """The report of a run, as scripts/evaluate.py makes it, by all ranks of the job."""

    options: EvaluateOptions
    folder: Path
    snapshot: Path | None = None

    def __call__(self) -> int:
        """Take part in the evaluation on this rank; rank 0 writes the report."""
        member, records = Member.of(os.environ), Records(self.folder)
        with telling_errors(records, member):
            check_snapshot(self.snapshot)
            from pix2pix.evaluation.report import make_report

            with join(member, records.folder, COLLECTIVE_TIMEOUT_MINUTES) as distributed:
                make_report(self.options, distributed)
        return 0


@contextmanager
def telling_errors(records: Records, member: Member) -> Iterator[None]:
    """Keep a rank's error for people, and end the rank at once: the others must not wait for it.

    Outside of a job, errors are the caller's.
    """
    try:
        yield
    except Exception as error:
        if member.job_id is None:
            raise
        records.tell_error(member.attempt, member.name, error)
        if not isinstance(error, UserError | LostProcessError):
            traceback.print_exc()
        elif member.rank == 0 or isinstance(error, LostProcessError):
            print(f"error: {error}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # An orderly exit waits for threads that wait for ranks.
        lost = isinstance(error, LostProcessError)
        os._exit(2 if isinstance(error, UserError) else 69 if lost else 1)  # as cli.main


def conclude(
    member: Member, records: Records, step: int, first_step: int, asked_to_stop: bool
) -> int:
    """Rank 0's last word on a stopped training: requeue it, or say why not."""
    if not member.is_slurm or member.job_id is None:
        return STOPPED
    try:
        verdict = decide_on_job(member.job_id, step, first_step, asked_to_stop)
        if verdict.requeue:
            print(f"requeueing job {member.job_id} at step {step}: {verdict.reason}", flush=True)
            records.add("requeued", job=member.job_id, restarts=member.restarts, step=step)
            requeue(member.job_id)
            return 0
    except SchedulerError as error:
        verdict = RequeueDecision(False, f"SLURM refuses: {error}; submit it again to go on")
    print(f"not requeued: {verdict.reason}", flush=True)
    records.add("not requeued", job=member.job_id, step=step, reason=verdict.reason)
    sys.exit(STOPPED)
