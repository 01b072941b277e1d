"""Put work on a SLURM cluster: python -m slurm.submit COMMAND [cluster flags] [flags of the work].

Everything that can be checked is checked before the job waits in a queue.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.make_shards import MakeShardsOptions
from data_prep.merge_shards import MergeShardsOptions
from pix2pix.cli.command_line import Command, Options, main
from pix2pix.cli.help import wrap
from pix2pix.config import TrainConfig
from pix2pix.data.data_set import epoch_samples, open_data, open_training
from pix2pix.doctor.options import DoctorOptions
from pix2pix.errors import UserError
from pix2pix.evaluation.report import EvaluateOptions
from pix2pix.run.run_directory import RunDirectory
from pix2pix.training.plan import EstimateOptions, check_estimate, cost_table
from slurm.checks import (
    check_cluster,
    check_one_at_a_time,
    check_run,
    check_trained,
    with_absolute_paths,
)
from slurm.doctor_table import DoctorPlace, doctor_plan, local_table
from slurm.job import EvaluateJob, TrainJob
from slurm.launch import Job, Launch, run_locally, submit
from slurm.local.cluster import use_local_cluster
from slurm.options import ClusterOptions
from slurm.records import Records
from slurm.requeue import STOPPED
from slurm.scheduler import is_there
from slurm.shards_job import MergeJob, PartJob, PartsOptions
from slurm.snapshot import snapshot_path, take_snapshot
from slurm.sweep import GridOptions, Point, points_of, write_sweep

MISTAKE = 2  # exit status of a UserError, as cli.main


def train(cluster: ClusterOptions, dry: EstimateOptions, config: TrainConfig) -> int:
    """Train on a cluster; with the flags of scripts/train.py, one rank on each GPU.

    The job saves and requeues itself before its time limit and when it is preempted, and goes on
    where it was. The same command, given again, goes on with a run that was stopped. --dry_run
    says what it costs.
    """
    check_estimate(dry.estimate, cluster.dry_run)
    config, changes = check_run(cluster, with_absolute_paths(config))
    run = RunDirectory(config.run_dir)
    if run.newest_step() >= (config.total_steps or 0):
        print(f"this run is finished (step {run.newest_step()}): nothing to submit")
        return 0
    for change in changes:
        print(f"changed since the last start: {change}")
    launch = _launch(cluster, run.root.name, run.jobs, run.snapshots)
    facts = {"config": config.to_json()}
    if not _is_ready(launch, facts, uses_gpus=True):
        samples = epoch_samples(open_training(config)[0])
        ranks = cluster.world_size, cluster.ranks_per_node
        print(cost_table(config, samples, *ranks, measure=dry.estimate), file=sys.stderr)
        return 0
    if cluster.cluster == "debug":
        return TrainJob(config)()
    check_one_at_a_time(Records(run.jobs))
    take_snapshot(run.snapshots)
    return _start(launch, TrainJob(config, launch.snapshot), facts)


def evaluate(cluster: ClusterOptions, options: EvaluateOptions) -> int:
    """Measure a trained run on a cluster; with the flags of scripts/evaluate.py."""
    options = with_absolute_paths(options)
    check_trained(options.run_dir)
    image_size = RunDirectory(options.run_dir).read_config().image_size
    open_data(options.shards, options.split, image_size)
    run = RunDirectory(options.run_dir)
    launch = _launch(cluster, f"{run.root.name}-evaluate", run.jobs / "evaluate", run.snapshots)
    facts = {"evaluate": _texts(options)}
    if not _is_ready(launch, facts, uses_gpus=True):
        return 0
    if cluster.cluster == "debug":
        return EvaluateJob(options, launch.folder)()
    take_snapshot(run.snapshots)
    return _start(launch, EvaluateJob(options, launch.folder, launch.snapshot), facts)


def shards(cluster: ClusterOptions, parts: PartsOptions, options: MakeShardsOptions) -> int:
    """Make shards on many machines: an array of parts, then one job that merges them.

    The files are byte for byte those of one machine. Takes the flags of data_prep.make_shards.
    """
    options = with_absolute_paths(options)
    if options.part is not None:
        raise UserError("each job makes a part of its own; leave --part out, --parts says how many")
    if cluster.world_size > 1:
        raise UserError("a part is the work of one machine; give --parts instead of nodes or tasks")
    if not options.photos.exists():
        raise UserError(f"there are no photographs in {options.photos}: it does not exist")
    if cluster.cpus_per_task and not options.num_workers:
        options = replace(options, num_workers=cluster.cpus_per_task)
    beside = options.out.with_name(f"{options.out.name}.jobs")
    launch = _launch(cluster, f"{options.out.name}-{options.split}", beside, beside / "snapshots")
    facts = {"shards": _texts(options), "parts": parts.parts}
    if not _is_ready(launch, facts, uses_gpus=False, num_jobs=parts.parts):
        return 0
    take_snapshot(beside / "snapshots")
    # In this process, the code is what it is.
    snapshot = None if cluster.cluster == "debug" else launch.snapshot
    jobs: list[Job] = [
        PartJob(replace(options, part=f"{number}/{parts.parts}"), beside, snapshot)
        for number in range(1, parts.parts + 1)
    ]
    merge = MergeJob(MergeShardsOptions(shards=options.out), beside, snapshot)
    if cluster.cluster == "slurm":
        return _queue_parts(launch, jobs, merge)
    # One after another, until one fails: each takes the machine as a whole.
    last: Job = merge
    for job in [*jobs, last]:
        status = job() if cluster.cluster == "debug" else _start(launch, job, facts)
        if status:
            return status
    return 0


def sweep(cluster: ClusterOptions, grid: GridOptions, config: TrainConfig) -> int:
    """Train every point of a grid of flags: a job array, a run directory for each point.

    The points lie in --run_dir, each with its own name. Points that are finished are not trained
    again, and the others go on. python -m slurm.status RUN_DIR shows their figures side by side.
    """
    config = with_absolute_paths(config)
    points = points_of(grid.grid, config)
    resolved = {point.name: _check_point(cluster, point) for point in points}
    left = {name: one for name, one in resolved.items() if not _is_finished(one)}
    print(f"{len(points)} points, {len(points) - len(left)} of them finished")
    if not left:
        return 0
    folder = config.run_dir / "slurm"
    launch = _launch(cluster, config.run_dir.name, folder, config.run_dir / "snapshots")
    facts = {"grid": list(grid.grid), "points": list(left)}
    if not _is_ready(launch, facts, uses_gpus=True, num_jobs=len(left)):
        return 0
    check_one_at_a_time(Records(folder))
    write_sweep(config.run_dir, grid.grid, points)
    take_snapshot(config.run_dir / "snapshots")
    snapshot = None if cluster.cluster == "debug" else launch.snapshot
    jobs: list[Job] = [TrainJob(one, snapshot, folder) for one in left.values()]
    if cluster.cluster == "slurm":
        return _queue_points(launch, jobs, facts)
    for name, job in zip(left, jobs, strict=True):  # each takes the machine as a whole
        print(name)
        status = job() if cluster.cluster == "debug" else _start(launch, job, {"point": name})
        if status:
            return status
    return 0


def doctor(cluster: ClusterOptions, place: DoctorPlace, options: DoctorOptions) -> int:
    """Run the doctor on each node of a job, and an all-reduce over all ranks: one table.

    It stands at the end of the job's log. Takes the flags of scripts/doctor.py.
    """
    if cluster.cluster == "debug":
        raise UserError("for one process of this machine run python scripts/doctor.py")
    place, options = with_absolute_paths(place), with_absolute_paths(options)
    launch, job = doctor_plan(cluster, place.out, options)
    facts = {"doctor": _texts(options)}
    if not _is_ready(launch, facts, uses_gpus=True):
        return 0
    take_snapshot(place.out / "snapshots")
    status = _start(launch, job, facts)
    return status or (local_table(place.out, options) if cluster.cluster == "local" else 0)


def _check_point(cluster: ClusterOptions, point: Point) -> TrainConfig:
    try:
        return check_run(cluster, point.config)[0]
    except UserError as error:
        raise UserError(f"the point {point.name}: {error}") from error


def _is_finished(config: TrainConfig) -> bool:
    return RunDirectory(config.run_dir).newest_step() >= (config.total_steps or 0)


def _queue_points(launch: Launch, jobs: list[Job], facts: dict[str, Any]) -> int:
    ids = submit(launch, jobs)
    for job_id, name in zip(ids, facts["points"], strict=True):
        Records(launch.folder).add("submitted", job=job_id, point=name, **_facts(launch, {}))
    array = ids[0].partition("_")[0]
    print(f"job {array} is queued ({len(ids)} points)")
    print(f"  watch  python -m slurm.status {shlex.quote(str(launch.folder.parent))}")
    print(f"  stop   scancel {array}   (they save first; the same command goes on)")
    return 0


def _queue_parts(launch: Launch, parts: list[Job], merge: MergeJob) -> int:
    """Queue the parts, and the merge after them, which tells of a part that failed."""
    array = submit(launch, parts)[0].partition("_")[0]
    after = replace(
        launch,
        name=f"{launch.name}-merge",
        dependency=f"afterany:{array}",
        last_words=[*launch.last_words, f'[ "$status" != {MISTAKE} ] || scancel "$SLURM_JOB_ID"'],
    )
    (last,) = submit(after, [replace(merge, array=array)])
    print(f"jobs {array} ({len(parts)} parts) and {last} (the merge) are queued")
    print(f"  logs   {launch.folder}")
    print(f"  watch  squeue --jobs {array},{last}")
    print(f"  stop   scancel {array} {last}   (the same command goes on)")
    return 0


def _launch(cluster: ClusterOptions, name: str, folder: Path, snapshots: Path) -> Launch:
    python = shlex.join([sys.executable, "-m", "slurm.requeue", "--folder", str(folder)])
    return Launch(
        cluster,
        name=name,
        folder=folder,
        snapshot=snapshot_path(snapshots),
        last_words=[f'[ "$status" = 0 ] || {python} --status "$status"'],
    )


def _is_ready(launch: Launch, facts: dict[str, Any], uses_gpus: bool, num_jobs: int = 1) -> bool:
    """Check the job against the cluster. Returns False for a dry run, which it shows."""
    cluster = launch.options
    lines = []
    if cluster.cluster == "slurm" and (is_there() or not cluster.dry_run):
        lines = check_cluster(launch, uses_gpus)
    elif cluster.cluster != "slurm" and cluster.unused_locally:
        lines = [f"not used on this machine: {', '.join(cluster.unused_locally)}"]
    if cluster.dry_run:
        is_slurm = cluster.cluster == "slurm"
        print(launch.script(num_jobs) if is_slurm else "# no script: it runs on this machine")
        print(json.dumps(_facts(launch, facts), indent=2))
    for line in lines:
        print(wrap(line), file=sys.stderr if cluster.dry_run else sys.stdout)
    return not cluster.dry_run


def _start(launch: Launch, job: Job, facts: dict[str, Any]) -> int:
    """Queue the job, or run it here; returns an exit status."""
    records = Records(launch.folder)

    def started(job_id: str) -> None:
        records.add("submitted", job=job_id, **_facts(launch, facts))
        _tell(launch, job_id)

    if launch.options.cluster == "slurm":
        started(submit(launch, [job])[0])
        return 0
    job_id, status = run_locally(launch, job, started)
    if status in (0, STOPPED):
        print(f"job {job_id} {'was stopped and has saved' if status else 'is done'}")
        return status
    told = records.last_error(job_id) or "a rank ended without a word; see the log"
    print(wrap(f"error: {told}"), file=sys.stderr)
    return MISTAKE if f" {UserError.__name__}: " in told else status


def _tell(launch: Launch, job_id: str) -> None:
    is_slurm = launch.options.cluster == "slurm"
    size = f"{launch.options.nodes} × {launch.options.ranks_per_node}"
    stop = f"scancel {job_id}" if is_slurm else f"kill {job_id}"
    print(f"job {job_id} {'is queued' if is_slurm else 'runs'} (nodes × ranks: {size})")
    print(f"  log    {launch.folder / f'{job_id}_0_log.out'}")
    if launch.folder.name == "slurm":
        print(f"  watch  python -m slurm.status {shlex.quote(str(launch.folder.parent))}")
        print(f"  stop   {stop}   (it saves first; the same command goes on)", flush=True)
    else:
        print(f"  stop   {stop}", flush=True)


def _facts(launch: Launch, facts: dict[str, Any]) -> dict[str, Any]:
    return {"cluster": _texts(launch.options), **facts, "snapshot": str(launch.snapshot)}


def _texts(options: Any) -> dict[str, Any]:
    """Return fields as JSON values."""
    values: Sequence[tuple[str, Any]] = list(dataclasses.asdict(options).items())
    return {name: str(value) if isinstance(value, Path) else value for name, value in values}


COMMANDS: dict[str, tuple[Command, Options]] = {
    "train": (train, (ClusterOptions, EstimateOptions, TrainConfig)),
    "sweep": (sweep, (ClusterOptions, GridOptions, TrainConfig)),
    "evaluate": (evaluate, (ClusterOptions, EvaluateOptions)),
    "doctor": (doctor, (ClusterOptions, DoctorPlace, DoctorOptions)),
    "shards": (shards, (ClusterOptions, PartsOptions, MakeShardsOptions)),
}


def command() -> None:
    """Run `pix2pix-submit`, and this file."""
    use_local_cluster()
    main(COMMANDS)


if __name__ == "__main__":
    command()
