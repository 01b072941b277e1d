"""Whether a job that ends shall start again, and how: by rank 0 after a stop, or by the script.

    python -m slurm.requeue --folder DIR --status N

is the last word of a job script whose ranks failed: it tells the first error, or waits where a
node is gone, since SLURM then requeues the job itself.
"""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.system.signals import StopRequest
from slurm.records import Records
from slurm.scheduler import SchedulerError, ask, job_state

STOPPED = 75  # EX_TEMPFAIL, as scripts/train.py
_PATIENCE_SECONDS = 90  # for a controller that restarts
_PROBE_SECONDS = 60


class RequeueDecision(NamedTuple):
    """Whether to requeue, and why; a line for people."""

    requeue: bool
    reason: str


def decide(
    *, step: int, first_step: int, asked_to_stop: bool, state: str, reason: str
) -> RequeueDecision:
    """The verdict on a training that was stopped, and has saved, before its end.

    step, first_step: where it is, and where this start began. asked_to_stop: a signal came, not
    the user's own time_limit_minutes. state, reason: of the job, as SLURM tells them now.
    """
    if not asked_to_stop:
        return RequeueDecision(False, "its --time_limit_minutes are over; submit it again to go on")
    timed_out = state in ("TIMEOUT", "COMPLETING") and reason == "TimeLimit"
    if state not in ("RUNNING", "SUSPENDED") and not timed_out:
        return RequeueDecision(False, f"it is cancelled, or SLURM ends it itself ({state.lower()})")
    if step <= first_step:
        return RequeueDecision(False, "no step since its last start: it would circle for ever")
    return RequeueDecision(True, f"{step - first_step} steps since its last start")


def decide_on_job(job_id: str, step: int, first_step: int, asked_to_stop: bool) -> RequeueDecision:
    """The same, with the job's state as SLURM tells it."""
    state, reason = _patiently(lambda: job_state(job_id))
    return decide(
        step=step, first_step=first_step, asked_to_stop=asked_to_stop, state=state, reason=reason
    )


def requeue(job_id: str) -> None:
    """Put the job back into the queue; SLURM ends this process. Raises SchedulerError."""
    # Or our own handlers would swallow the SIGTERM of the requeue, and SLURM would wait for us.
    for number in StopRequest.signals:
        signal.signal(number, signal.SIG_DFL)
    _patiently(lambda: ask("scontrol", "requeue", job_id))


def _patiently(question):  # type: ignore[no-untyped-def]
    """The answer, also where the controller restarts just now."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return question()
        except SchedulerError:
            if time.monotonic() > deadline:
                raise
        time.sleep(2)


@dataclass(frozen=True)
class AfterFailureOptions:
    """What the job script knows when its ranks have ended badly."""

    folder: Path = option(help="folder of the job's logs", metavar="DIR")
    status: int = option(help="exit status of srun", metavar="STATUS")


def after_failure(options: AfterFailureOptions) -> int:
    """The last word of a job script whose ranks ended badly; returns its exit status."""
    if options.status == STOPPED:
        return STOPPED
    job_id = os.environ["SLURM_JOB_ID"]
    attempt = f"{job_id}_{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    records = Records(options.folder)
    error = records.first_error(attempt)
    if error:
        print(f"\nthe first error of job {job_id}: {error}", flush=True)
        return options.status
    missed = records.lost_peer(attempt) or f"srun ended with status {options.status}"
    print(f"\na rank is gone without a word ({missed})", flush=True)
    if _nodes_answer():
        print("all nodes are well, so it ended for reasons of its own: see above", flush=True)
        return options.status
    seconds = _slurmd_timeout() + _PROBE_SECONDS
    print(f"a node does not answer; SLURM requeues this job within {seconds} s", flush=True)
    time.sleep(seconds)
    return options.status


def _nodes_answer() -> bool:
    nodes = os.environ["SLURM_JOB_NUM_NODES"]
    everywhere = ("--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1")
    try:
        ask("srun", *everywhere, "true", seconds=_PROBE_SECONDS)
    except SchedulerError:
        return False
    return True


def _slurmd_timeout() -> int:
    """Seconds after which SLURM gives a silent node up."""
    found = re.search(r"SlurmdTimeout\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return int(found[1]) if found else 300


if __name__ == "__main__":
    main(after_failure, AfterFailureOptions)
