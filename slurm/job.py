"""The jobs, as they are pickled at submission and called on every rank."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pix2pix.config import TrainConfig
from pix2pix.data import loader_server
from pix2pix.errors import LostProcessError, UserError
from pix2pix.evaluation.report import EvaluateOptions
from pix2pix.run.run_directory import RunDirectory
from pix2pix.system import console
from pix2pix.system.signals import StopRequest
from slurm.process_group import Member, join
from slurm.records import Cause, Records, Stop
from slurm.requeue import STOPPED
from slurm.snapshot import check_snapshot

if TYPE_CHECKING:
    from pix2pix.run.distributed import Distributed

COLLECTIVE_TIMEOUT_MINUTES = 10  # of an evaluation


@dataclass(frozen=True)
class TrainJob:
    """A training: every start of the job goes on where the last one stopped.

    snapshot: the code that it must run; None, whatever runs. folder: where it tells how it went,
    which the job's script reads; None, in the run directory.
    """

    config: TrainConfig
    snapshot: Path | None = None
    folder: Path | None = None

    def __call__(self) -> int:
        """Train on this rank. Returns 0 or, stopped and saved, 75 as scripts/train.py."""
        folder = self.folder or RunDirectory(self.config.run_dir).jobs
        member, records = Member.of(os.environ), Records(folder)
        drop_submitit_handlers(member)
        if member.job_id is not None:
            console.never_fail()
        # Before the imports: they take a minute on a busy file system. Until it ends nobody but
        # SLURM kills this process.
        with StopRequest(patient=True).listening() as request:
            with telling_errors(records, member):
                check_snapshot(self.snapshot)
                start_loader_server(self.config.num_workers)
                stop = self._fit(member, records, request)
            return 0 if stop is None else end_stopped(member, records, stop)

    def _fit(self, member: Member, records: Records, request: StopRequest) -> Stop | None:
        """Train; returns how it was stopped, None where it is finished."""
        with join(member, records.folder, self.config.collective_timeout_minutes) as distributed:
            return self._trained(member, records, request, distributed)  # its trainer ends first

    def _trained(
        self, member: Member, records: Records, request: StopRequest, distributed: "Distributed"
    ) -> Stop | None:
        import torch

        from pix2pix.training.trainer import Outcome, Trainer

        trainer = Trainer(self.config, distributed, request)
        first_step = trainer.state.step
        attempt = {"job": member.job_id, "restarts": member.restarts}
        if distributed.is_main:
            where = {"nodes": member.num_nodes, "ranks": member.world_size}
            records.add("started", **attempt, step=first_step, **where)
        outcome = trainer.fit()
        step = trainer.state.step
        if distributed.is_main:
            records.add("ended", **attempt, step=step, outcome=outcome.value)
        asked = torch.tensor(float(request.received is not None), device=distributed.device)
        asked = distributed.sum(asked)  # a signal may have reached one rank alone
        if outcome is not Outcome.STOPPED:
            return None
        faulty_nodes = tuple(trainer.stops.failed_nodes)
        if faulty_nodes:
            return Stop(step, first_step, "disk", faulty_nodes)
        cause: Cause = "signal" if asked else "time_limit_minutes"
        return Stop(step, first_step, cause)


@dataclass(frozen=True)
class EvaluateJob:
    """The report of a run, as scripts/evaluate.py makes it, by all ranks of the job."""

    options: EvaluateOptions
    folder: Path
    snapshot: Path | None = None

    def __call__(self) -> int:
        """Take part in the evaluation on this rank; rank 0 writes the report."""
        with in_job(self.folder, self.snapshot) as (member, records):
            start_loader_server(self.options.num_workers)
            from pix2pix.evaluation.report import make_report

            with join(member, records.folder, COLLECTIVE_TIMEOUT_MINUTES) as distributed:
                make_report(self.options, distributed)
        return 0


@contextmanager
def in_job(folder: Path, snapshot: Path | None) -> Iterator[tuple[Member, Records]]:
    """Prepare this rank for the work of a job inside: signals, its code, where its errors go.

    folder: of the records. snapshot: as of `TrainJob`.
    """
    member, records = Member.of(os.environ), Records(folder)
    drop_submitit_handlers(member)
    with telling_errors(records, member):
        check_snapshot(snapshot)
        yield member, records


def start_loader_server(num_workers: int | None) -> None:
    """Start the server of loader workers, if any: it imports torch while this process does."""
    if num_workers != 0:
        loader_server.start()


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


def drop_submitit_handlers(member: Member) -> None:
    """Remove submitit's signal handlers from this job, for good.

    That of USR2 computes with a time limit, which a job need not have, and requeues by rules of its
    own. A job that saves and goes on later sets handlers itself; any other goes on till SLURM ends
    it.
    """
    if member.job_id is None:
        return  # a process of the user's, with the user's handlers

    def tell(number: int, frame: FrameType | None) -> None:
        print(f"{signal.Signals(number).name}: going on as long as SLURM permits", flush=True)

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, tell)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)


def end_stopped(member: Member, records: Records, stop: Stop) -> int:
    """End a rank of a job that was stopped and has saved; the job's script decides what is next.

    Returns:
        75; under SLURM this is the exit status of rank 0, and the others end well: srun would
        kill rank 0 if one of them came first.
    """
    if not member.is_slurm:
        return STOPPED
    if member.rank > 0:
        return 0
    records.tell_stop(member.attempt, stop)
    sys.exit(STOPPED)
