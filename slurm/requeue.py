"""The decision at the end of a job whether it starts again, and its requeue.

    python -m slurm.requeue --folder DIR --status N

is the last word of a job script whose ranks did not finish: it requeues a training that was stopped
and has saved, tells the first error, or waits where a node is gone, since SLURM then requeues the
job itself. It runs outside of the job's container, which need not have SLURM's programs.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from slurm.records import Records, Stop
from slurm.scheduler import (
    SchedulerError,
    ask,
    attempt_of,
    job_fields,
    job_id_of,
    job_state,
)

STOPPED = 75  # EX_TEMPFAIL, as scripts/train.py
_PATIENCE_SECONDS = 90  # for a controller that restarts
_PROBE_SECONDS = 60

T = TypeVar("T")


class RequeueDecision(NamedTuple):
    """Whether to requeue, and why; a line for people."""

    requeue: bool
    reason: str


def decide(stop: Stop, state: str, reason: str) -> RequeueDecision:
    """Return the verdict on a job that was stopped, and has saved, before its end.

    Args:
        stop: how it ended.
        state: of the job, as SLURM tells it now.
        reason: of that state.
    """
    if stop.cause == "time_limit_minutes":
        return RequeueDecision(False, "its --time_limit_minutes are over; submit it again to go on")
    timed_out = state in ("TIMEOUT", "COMPLETING") and reason == "TimeLimit"
    if state not in ("RUNNING", "SUSPENDED") and not timed_out:
        return RequeueDecision(False, f"it is canceled, or SLURM ends it itself ({state.lower()})")
    after = " and a disk failed" if stop.cause == "disk" else ""
    if stop.step <= stop.first_step:
        return RequeueDecision(
            False, f"no step since its last start{after}: it would circle for ever"
        )
    return RequeueDecision(True, f"{stop.step - stop.first_step} steps since its last start{after}")


def node_to_avoid(num_nodes: int, faulty: Sequence[str]) -> str | None:
    """Return the node whose disk failed alone; None where a file system of all may be at fault."""
    return faulty[0] if num_nodes > 1 and len(faulty) == 1 else None


@dataclass(frozen=True)
class LastWordsOptions:
    """What the job script knows when its ranks have ended."""

    folder: Path = option(help="folder of the job's logs", metavar="DIR")
    status: int = option(help="exit status of srun", metavar="STATUS")


def last_words(options: LastWordsOptions) -> int:
    """End a job script whose ranks did not finish; returns its exit status."""
    records = Records(options.folder)
    attempt = attempt_of(os.environ)
    stop = records.stop(attempt)
    if stop is not None:
        return conclude(records, attempt, stop)
    error = records.first_error(attempt)
    if error:
        print(f"\nthe first error of job {job_id_of(os.environ)}: {error}", flush=True)
        return options.status
    state, _ = job_state(job_id_of(os.environ))
    if state != "RUNNING":
        print(f"\nit is canceled, or SLURM ends it itself ({state.lower()})", flush=True)
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


def conclude(records: Records, attempt: str, stop: Stop) -> int:
    """Requeue a job that was stopped and has saved, or say why not."""
    job_id, _, restarts = attempt.rpartition("_")
    try:
        verdict = decide(stop, *_patiently(lambda: job_state(job_id)))
        if verdict.requeue:
            avoided = node_to_avoid(int(os.environ["SLURM_JOB_NUM_NODES"]), stop.faulty_nodes)
            without = f", without {avoided}, where it failed alone" if avoided else ""
            print(
                f"requeueing job {job_id} at step {stop.step}: {verdict.reason}{without}",
                flush=True,
            )
            records.add("requeued", job=job_id, restarts=int(restarts), step=stop.step)
            requeue(job_id, avoided)
            return STOPPED
    except SchedulerError as error:
        verdict = RequeueDecision(False, f"SLURM refuses: {error}; submit it again to go on")
    print(f"not requeued: {verdict.reason}", flush=True)
    records.add("not requeued", job=job_id, step=stop.step, reason=verdict.reason)
    return STOPPED


def requeue(job_id: str, avoided: str | None = None) -> None:
    """Put the job of this script back into the queue. Raises SchedulerError.

    Args:
        job_id: the job; SLURM ends what is left of it.
        avoided: a node that it shall not start on again.
    """
    # SLURM signals the whole script, and kills it some seconds later: time for what follows.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _patiently(lambda: ask("scontrol", "requeue", job_id))
    if avoided:
        excluded = job_fields(job_id).get("ExcNodeList", "(null)")
        nodes = avoided if excluded == "(null)" else f"{excluded},{avoided}"
        # Only a job that waits can be told so: it does as soon as it is requeued.
        _patiently(lambda: ask("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={nodes}"))


def _patiently(question: Callable[[], T]) -> T:
    """Return the answer, also where the controller restarts just now."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return question()
        except SchedulerError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)


def _nodes_answer() -> bool:
    nodes = os.environ["SLURM_JOB_NUM_NODES"]
    everywhere = ("--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1")
    try:
        ask("srun", *everywhere, "true", seconds=_PROBE_SECONDS)
    except SchedulerError:
        return False
    return True


def _slurmd_timeout() -> int:
    """Return the seconds after which SLURM gives a silent node up."""
    found = re.search(r"SlurmdTimeout\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return int(found[1]) if found else 300


if __name__ == "__main__":
    main(last_words, LastWordsOptions)
