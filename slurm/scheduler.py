"""Queries to SLURM's own programs, and their parsed answers."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

# Of a job around this one, if there is one: they would be taken for those of the new job.
_OF_A_JOB = re.compile(
    r"SLURM_(?!CONF$).*|SLURMD_.*|SRUN_.*|SUBMITIT_.*|PMI_?.*|(LOCAL_)?RANK|(LOCAL_)?WORLD_SIZE|"
    r"MASTER_(ADDR|PORT)"
)
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
ENDED |= {"PREEMPTED", "BOOT_FAIL", "DEADLINE", "REVOKED"}


class SchedulerError(Exception):
    """A program of SLURM is missing, silent or unwilling; the message is what it said."""


class JobRow(NamedTuple):
    """A job as SLURM sees it; elapsed as [D-]HH:MM:SS."""

    state: str
    elapsed: str
    nodes: str


def ask(*command: str, stdin: str | None = None, seconds: float = 60) -> str:
    """Return what a program prints. Raises SchedulerError with its complaint."""
    try:
        ended = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=seconds
        )
    except FileNotFoundError:
        raise SchedulerError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{command[0]} did not answer in {seconds:.0f} s") from None
    if ended.returncode:
        words = (ended.stderr or ended.stdout).strip().splitlines()
        told = "; ".join(line.partition("error: ")[2] or line for line in words)
        raise SchedulerError(told or f"{command[0]} ended with status {ended.returncode}")
    return ended.stdout + (ended.stderr if "--test-only" in command else "")


def is_there() -> bool:
    """Return True if this machine can talk to a cluster."""
    if not shutil.which("sinfo"):
        return False
    try:
        ask("sinfo", "--noheader", "--format=%P", seconds=20)
    except SchedulerError:
        return False
    return True


class Partition(NamedTuple):
    """A partition. time: how long a job runs that asks for no limit; None: as long as it likes."""

    name: str
    is_default: bool
    time: str | None
    gpus: str  # of its nodes, as --gres takes them; "" where they have none


def partitions() -> list[Partition]:
    """Return the partitions, by name."""
    found: dict[str, Partition] = {}
    # One line for each kind of node that a partition has.
    for line in ask("sinfo", "--noheader", "--format=%P|%L|%l|%G").splitlines():
        name, default_time, max_time, gres = line.strip().split("|")
        time = max_time if default_time == "n/a" else default_time
        without_sockets = re.sub(r"\(.*?\)", "", gres)  # gpu:a100:4(S:0,2)
        gpus = [item for item in without_sockets.split(",") if item.startswith("gpu")]
        before = found.get(name)
        found[name] = Partition(
            name=name.removesuffix("*"),
            is_default=name.endswith("*"),
            time=None if time == "infinite" else time,
            gpus=(before.gpus if before else "") or ",".join(gpus),
        )
    return sorted(found.values())


def job_fields(job_id: str) -> dict[str, str]:
    """Return what `scontrol show job` says of a job that waits, runs, or ran a moment ago."""
    told = ask("scontrol", "--oneliner", "show", "job", job_id)
    return dict(word.split("=", 1) for word in told.split() if "=" in word)


def job_state(job_id: str) -> tuple[str, str]:
    """Return (state, reason) of a job that runs, or ran a moment ago."""
    fields = job_fields(job_id)
    return fields.get("JobState", "UNKNOWN"), fields.get("Reason", "")


def job_id_of(environment: Mapping[str, str]) -> str:
    """Return the id of the job around this process, as its log is named: `12`, or `12_3`."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def attempt_of(environment: Mapping[str, str]) -> str:
    """Return which start of which job is around this process: `12_0`."""
    return f"{job_id_of(environment)}_{environment.get('SLURM_RESTART_COUNT', '0')}"


def node_address(name: str) -> str | None:
    """Return the address that SLURM itself uses for a node; names of nodes need not resolve."""
    try:
        told = ask("scontrol", "--oneliner", "show", "node", name)
    except SchedulerError:
        return None
    found = re.search(r"NodeAddr=(\S+)", told)
    return found[1] if found else None


def queued_logs() -> list[str]:
    """Return where my jobs log that wait, run or have just ended; none without SLURM."""
    try:
        told = ask("squeue", "--me", "-h", "-t", "all", "-O", "STDOUT:4096")
    except SchedulerError:
        return []
    return sorted({line.strip() for line in told.splitlines()})


def jobs(ids: Iterable[str]) -> dict[str, JobRow]:
    """Return jobs by id, from the accounting where there is some, else from the queue."""
    listed = ",".join(ids)
    if not listed:
        return {}
    try:
        told = ask("sacct", "-XnP", "-j", listed, "-o", "JobID,State,Elapsed,NNodes")
    except SchedulerError:
        told = ""
    return _rows(told) | queued(listed.split(","))


def queued(ids: Iterable[str]) -> dict[str, JobRow]:
    """Return those of the jobs that wait, run or have just ended, by id."""
    listed = ",".join(ids)
    if not listed:
        return {}
    try:
        told = ask("squeue", "-h", "-t", "all", "-j", listed, "-o", "%i|%T|%M|%D")
    except SchedulerError:  # squeue refuses an id that it has forgotten
        return {}
    return _rows(told)


def _rows(text: str) -> dict[str, JobRow]:
    rows = {}
    for line in text.splitlines():
        job_id, state, elapsed, nodes = line.split("|")
        # "CANCELLED by 1000"; squeue leaves the hours out
        full = elapsed if elapsed.count(":") > 1 else f"00:{elapsed:0>5}"
        rows[job_id] = JobRow(state.split()[0], full, nodes)
    return rows


@contextmanager
def outside_of_any_job(environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Hide what the environment says of a job around this one, and set `environment` instead."""
    before = dict(os.environ)
    for name in before:
        if _OF_A_JOB.fullmatch(name):
            del os.environ[name]
    os.environ.update(environment or {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
