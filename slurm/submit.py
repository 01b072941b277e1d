"""Put work on a SLURM cluster: python -m slurm.submit COMMAND [cluster flags] [flags of the work].

Everything that can be checked is checked before the job waits in a queue.
"""

import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from pix2pix.cli import main
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.preflight import check_training
from pix2pix.run_directory import RunDirectory
from pix2pix.shards import open_split, read_manifest
from slurm.job import TrainJob
from slurm.launch import Launch, check_cluster, run_locally, submit
from slurm.local_cluster import use_local_cluster
from slurm.options import ClusterOptions
from slurm.records import Records
from slurm.requeue import STOPPED
from slurm.scheduler import ENDED, is_there, queued
from slurm.snapshot import snapshot_path, take_snapshot


def train(cluster: ClusterOptions, config: TrainConfig) -> int:
    """Train on a cluster; with the flags of scripts/train.py, one rank on each GPU.

    The job saves and requeues itself before its time limit and when it is preempted, and goes on
    where it was. The same command, given again, goes on with a run that was stopped.
    """
    config = _with_absolute_paths(config)
    run = RunDirectory(config.run_dir)
    resolved, changes = check_run(cluster, config)
    if run.newest_step() >= (resolved.total_steps or 0):
        print(f"this run is finished (step {run.newest_step()}): nothing to submit")
        return 0
    _check_not_running(Records(config.run_dir))
    launch = Launch(
        cluster,
        name=config.run_dir.name,
        folder=run.jobs,
        snapshot=snapshot_path(run.snapshots),
        last_words=_last_words(config.run_dir),
    )
    for change in changes:
        print(f"changed since the last start: {change}")
    return _launch(launch, resolved, run)


def check_run(cluster: ClusterOptions, config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """(the configuration with its length, what changes in a run that is there).

    Raises UserError for whatever would stop the training on the nodes.
    """
    splits = {name: open_split(config.shards, name) for name in _splits(config.shards)}
    on_cpu = cluster.gpus_per_node == 0
    resolved = check_training(config, splits["train"], cluster.world_size, on_cpu)
    changes = RunDirectory(config.run_dir).check(resolved, splits["train"].digest)
    if config.init_from is not None:
        source = RunDirectory(config.init_from)
        source.read_config()
        if not source.newest_step():
            raise UserError(f"init_from {config.init_from} has no checkpoint yet")
    return resolved, changes


def _launch(launch: Launch, config: TrainConfig, run: RunDirectory) -> int:
    cluster = launch.options
    if cluster.cluster == "slurm" and (is_there() or not cluster.dry_run):
        check_cluster(launch)
    if cluster.dry_run:
        _show(launch, config)
        return 0
    if cluster.cluster == "debug":
        return TrainJob(config)()

    take_snapshot(run.snapshots)
    job, records = TrainJob(config, launch.snapshot), Records(run.root)

    def started(job_id: str) -> None:
        records.add("submitted", job=job_id, **_facts(launch, config))
        _tell(launch, job_id)

    if cluster.cluster == "slurm":
        started(submit(launch, [job])[0])
        return 0
    job_id = run_locally(launch, job, started)
    return _end_of(records, job_id)


def _end_of(records: Records, job_id: str) -> int:
    """How a local job ended: exit status, with a line about it."""
    error = records.last_error(job_id)
    ends = [line for line in records.read("ended") if line["job"] == job_id]
    if error or not ends:
        print(f"error: {error or 'the job ended without a word; see its log'}", file=sys.stderr)
        return 1
    stopped = ends[-1]["outcome"] == "stopped"
    told = "stopped and saved at" if stopped else "finished at"
    print(f"{told} step {ends[-1]['step']}: {records.folder.parent}")
    return STOPPED if stopped else 0


def _tell(launch: Launch, job_id: str) -> None:
    run_dir, is_slurm = launch.folder.parent, launch.options.cluster == "slurm"
    size = f"{launch.options.nodes} × {launch.options.ranks_per_node}"
    stop = f"scancel {job_id}" if is_slurm else f"kill {job_id}"
    print(f"job {job_id} {'is queued' if is_slurm else 'runs'} (nodes × ranks: {size})")
    print(f"  log    {launch.folder / f'{job_id}_0_log.out'}")
    print(f"  watch  python -m slurm.status {shlex.quote(str(run_dir))}")
    print(f"  stop   {stop}   (it saves first; the same command goes on)", flush=True)


def _show(launch: Launch, config: TrainConfig) -> None:
    if launch.options.cluster == "slurm":
        print(launch.script())
    else:
        ranks = launch.options.ranks_per_node
        print(f"# {ranks} process{'' if ranks == 1 else 'es'} of this machine")
    print(json.dumps(_facts(launch, config), indent=2))


def _facts(launch: Launch, config: TrainConfig) -> dict[str, Any]:
    cluster = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(launch.options).items()
    }
    return {"cluster": cluster, "config": config.to_json(), "snapshot": str(launch.snapshot)}


def _last_words(run_dir: Path) -> list[str]:
    python = shlex.join([sys.executable, "-m", "slurm.requeue", "--run_dir", str(run_dir)])
    return [f'[ "$status" = 0 ] || {python} --status "$status"']


def _check_not_running(records: Records) -> None:
    """Two jobs in one run directory would write over each other's checkpoints."""
    submitted = {
        line["job"]: line["cluster"]["cluster"] for line in records.read("submitted")[-50:]
    }
    rows = queued([job for job, cluster in submitted.items() if cluster == "slurm"])
    running = [job for job, row in rows.items() if row.state not in ENDED]
    running += [
        job
        for job, cluster in submitted.items()
        if cluster == "local" and _is_local_job(job, records.folder)
    ]
    if running:
        raise UserError(
            f"job {running[0]} is at work on {records.folder.parent}; wait for it, or stop it "
            f"with scancel {running[0]}"
        )


def _is_local_job(job_id: str, folder: Path) -> bool:
    try:
        return str(folder).encode() in Path(f"/proc/{job_id}/cmdline").read_bytes()
    except OSError:
        return False


def _splits(shards: Path) -> list[str]:
    return ["train", *({"val"} & read_manifest(shards).splits.keys())]


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Nodes need not start in the folder where the command was given."""
    paths: dict[str, Any] = {
        name: Path(os.path.abspath(value))
        for name, value in vars(config).items()
        if isinstance(value, Path)
    }
    return dataclasses.replace(config, **paths)


if __name__ == "__main__":
    use_local_cluster()
    main({"train": (train, (ClusterOptions, TrainConfig))})
