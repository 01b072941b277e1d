"""Checks before a job is queued: a typo is found now, not after four hours."""

import dataclasses
import os
from pathlib import Path
from typing import Any, TypeVar

from pix2pix.cli.options import enumerate_words, suggestion
from pix2pix.config import TrainConfig
from pix2pix.data.data_set import digest_of, open_training
from pix2pix.data.preflight import check_training
from pix2pix.errors import UserError
from pix2pix.evaluation.report import EvaluateOptions
from pix2pix.run.run_directory import RunDirectory
from pix2pix.system.urls import absolute
from slurm.launch import Launch
from slurm.options import ClusterOptions, minutes_of
from slurm.records import Records
from slurm.scheduler import (
    ENDED,
    Partition,
    SchedulerError,
    ask,
    is_there,
    outside_of_any_job,
    partitions,
    queued,
)

T = TypeVar("T")
_LAST_JOBS = 50  # of a run, that may still be at work


def check_run(cluster: ClusterOptions, config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Return (the configuration with its length, what changes in a run that is there).

    Raises:
        UserError: something would stop the training on the nodes.
    """
    train, _ = open_training(config)
    on_cpu = cluster.gpus.number == 0
    resolved = check_training(config, train, cluster.world_size, on_cpu)
    changes = RunDirectory(config.run_dir).check(resolved, digest_of(train))
    if config.init_from is not None:
        check_trained(config.init_from)
    return resolved, changes


def check_trained(run_dir: Path) -> None:
    """Raise UserError unless `run_dir` is a run with a checkpoint."""
    run = RunDirectory(run_dir)
    run.read_config()
    if not run.newest_step():
        raise UserError(f"{run_dir} has no checkpoint yet; train it first, or a little longer")


def check_one_at_a_time(records: Records) -> None:
    """Raise UserError where a job is at work already: two would overwrite each other's files."""
    lines = records.read("submitted")[-_LAST_JOBS:]
    submitted = {line["job"]: line["cluster"]["cluster"] for line in lines}
    rows = queued([job for job, cluster in submitted.items() if cluster == "slurm"])
    running = [f"scancel {job}" for job, row in rows.items() if row.state not in ENDED]
    for job, cluster in submitted.items():
        if cluster == "local" and _is_local_job(job, records.folder):
            running.append(f"kill {job}")
    if running:
        job = running[0].split()[1]
        raise UserError(
            f"job {job} is at work on {records.folder.parent}; wait for it, or stop it with "
            f"{running[0]}"
        )


def check_cluster(launch: Launch, uses_gpus: bool) -> list[str]:
    """Raise UserError where SLURM would not take the job; queues nothing.

    Args:
        launch: the job.
        uses_gpus: whether its work is faster on GPUs.

    Returns:
        Lines to tell before it is queued: how long a start may run, GPUs that nobody asked for.
    """
    if not is_there():
        raise UserError(
            "this machine reaches no SLURM (sinfo does not answer); log in to the cluster, start "
            "one here with `make cluster`, or try the job with --cluster local"
        )
    options = launch.options
    wanted = _partitions_of(options)
    lines = [_time_limit(options, wanted)]
    gpus = next((partition.gpus for partition in wanted if partition.gpus), None)
    if uses_gpus and gpus and not options.gpus.number:
        lines.append(
            f"no GPU is asked for, and nodes of {enumerate_words([p.name for p in wanted], 'and')} "
            f"have some ({gpus}): --gpus_per_node takes them, without it this runs on the CPU"
        )
    try:
        with outside_of_any_job():
            ask("sbatch", "--test-only", stdin=launch.script())
    except SchedulerError as error:
        raise UserError(f"SLURM would not take this job: {error}") from None
    return lines


def _partitions_of(options: ClusterOptions) -> list[Partition]:
    """Return the partitions where the job may run. Raises UserError for one that is not there."""
    known = {partition.name: partition for partition in partitions()}
    names = options.partition or os.environ.get("SBATCH_PARTITION")
    if not names:
        return [partition for partition in known.values() if partition.is_default]
    for name in names.split(","):
        if name not in known:
            hint = suggestion(name, known) or f"; there are {enumerate_words(known, 'and')}"
            raise UserError(f"there is no partition {name}{hint}")
    return [known[name] for name in names.split(",")]


def _time_limit(options: ClusterOptions, wanted: list[Partition]) -> str:
    """Return a line: how long a start may run. Raises UserError where it has no time to save."""
    asked = options.time or os.environ.get("SBATCH_TIMELIMIT")
    if asked:
        return f"each start may run {asked} (--time, or SBATCH_TIMELIMIT)"
    limits = [(minutes_of(p.time), p) for p in wanted if p.time]
    if not limits:
        return "each start may run without a limit: neither --time nor the partition sets one"
    minutes, shortest = min(limits)
    limit = f"{shortest.time}, what partition {shortest.name} gives without --time,"
    options.check_time_to_save(minutes, limit)
    return f"each start may run {limit.rstrip(',')}"


def with_absolute_paths(options: T) -> T:
    """Return the options as the nodes need them: they may start in another folder."""
    paths: dict[str, Any] = {
        name: Path(os.path.abspath(value))
        for name, value in vars(options).items()
        if isinstance(value, Path)
    }
    if isinstance(options, TrainConfig | EvaluateOptions):
        paths["shards"] = tuple(absolute(place) for place in options.shards)
        folder = options.shards_cache
        if folder is not None and "$" not in folder:  # a variable is the node's to say
            paths["shards_cache"] = os.path.abspath(os.path.expanduser(folder))
    return dataclasses.replace(options, **paths)  # type: ignore[type-var]


def _is_local_job(job_id: str, folder: Path) -> bool:
    try:
        return str(folder).encode() in Path(f"/proc/{job_id}/cmdline").read_bytes()
    except OSError:
        return False
