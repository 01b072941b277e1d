"""Promises on a real SLURM: submitted trainings arrive, whatever happens to them on the way."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.merge_shards import MergeShardsOptions
from pix2pix.evaluation.evaluation import METRICS
from pix2pix.evaluation.report import EvaluateOptions
from slurm.job import EvaluateJob
from slurm.scheduler import job_fields
from slurm.shards_job import MergeJob, PartJob
from tests.photographs import write_folder
from tests.ranks import run_ranks
from tests.slurm.jobs import (
    LONG,
    SECONDS,
    go_on,
    records_of,
    run,
    submit,
    wait_for_state,
    wait_for_steps,
)
from tests.small_training import fit, tensor_digests, tiny_config, trainer_of
from tests.training.test_launcher import ENVIRONMENT, ROOT, logged_steps, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


def log_of(run_dir: Path, job: str) -> str:
    return (run_dir / "slurm" / f"{job}_0_log.out").read_text()


def restored(config) -> dict[str, str]:
    return tensor_digests({"state": trainer_of(config).state.state_dict()})


def weights(config) -> dict[str, str]:
    """Digest of every tensor in the newest checkpoint of a run."""
    (digests,) = run_ranks(restored, 1, config)
    return digests


def test_two_nodes_of_two_ranks_equal_four_local_ranks_to_the_bit(cluster, tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "a run", global_batch=8)
    job = submit(config, "--nodes=2", "--tasks_per_node=2")
    local = tiny_config(tiny_shards, tmp_path / "local", global_batch=8)
    run_ranks(fit, 4, local)
    wait_for_state(job, "COMPLETED")
    (started,) = records_of(config.run_dir).read("started")
    assert (started["nodes"], started["ranks"]) == (2, 4)
    assert "training on 4 × cpu" in log_of(config.run_dir, job)
    assert weights(config) == weights(local)


def test_a_signal_saves_requeues_and_arrives_at_the_same_weights(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir, total_steps=40)
    job = submit(config, "--nodes=2")
    wait_for_steps(run_dir, 3)
    cluster.run("scancel", "--signal=USR2", job)
    go_on(cluster, job)
    wait_for_state(job, "COMPLETED")
    first, second = records_of(run_dir).read("started")
    (stopped, finished) = records_of(run_dir).read("ended")
    assert (first["step"], finished["step"]) == (0, 40)
    assert 3 <= stopped["step"] == second["step"] < 40
    assert logged_steps(run_dir) == list(range(1, 41))  # without a seam
    whole = tiny_config(tiny_shards, run_dir.with_name("whole"), total_steps=40)
    run_ranks(fit, 2, whole)
    assert weights(config) == weights(whole)


def test_a_preempted_training_gives_way_and_goes_on(cluster, tiny_shards, run_dir):
    job = submit(tiny_config(tiny_shards, run_dir, total_steps=LONG), "--nodes=2")
    wait_for_steps(run_dir, 3)
    urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
    other = cluster.run("sbatch", "--parsable", *urgent, "--wrap=srun true").strip()
    go_on(cluster, job)
    wait_for_state(other, "COMPLETED")
    wait_for(lambda: len(records_of(run_dir).read("started")) == 2, SECONDS)
    saved = records_of(run_dir).read("ended")[0]["step"]
    assert saved >= 3
    assert records_of(run_dir).read("started")[1]["step"] == saved


def test_the_time_limit_saves_and_requeues_in_time(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir, total_steps=LONG)
    job = submit(config, "--time=1", "--save_seconds=45")
    wait_for(lambda: records_of(run_dir).read("requeued"), SECONDS)
    (requeued,) = records_of(run_dir).read("requeued")
    assert requeued["step"] > 0
    wait_for_state(job, "PENDING")


def test_a_cancelled_training_saves_and_stays_away(cluster, tiny_shards, run_dir):
    job = submit(tiny_config(tiny_shards, run_dir, total_steps=LONG))
    wait_for_steps(run_dir, 3)
    cluster.run("scancel", job)
    wait_for_state(job, "CANCELLED")
    (ended,) = records_of(run_dir).read("ended")
    assert (run_dir / "checkpoints" / f"step_{ended['step']:09d}").exists()
    assert "not requeued: it is canceled" in log_of(run_dir, job)


def test_a_lost_node_requeues_and_goes_on_from_the_last_checkpoint(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir, total_steps=LONG, checkpoint_every=2)
    job = submit(config, "--nodes=2")
    wait_for_steps(run_dir, 5)
    cluster.kill_node("n2")
    wait_for_state(job, "PENDING")
    cluster.restart_node("n2")
    go_on(cluster, job)
    wait_for(lambda: len(records_of(run_dir).read("started")) == 2, SECONDS)
    step = records_of(run_dir).read("started")[1]["step"]
    assert step >= 2
    assert step % 2 == 0
    wait_for_steps(run_dir, step + 2)


# On one node, after the first steps, every read of a shard fails.
FAILING_DISK = """
import errno, os
if os.environ.get("SLURMD_NODENAME") == "n2" and "SLURM_PROCID" in os.environ:
    from pix2pix.system import reading
    reading.PATIENCE_SECONDS = 1
    pread, reads = os.pread, []
    def failing(*arguments):
        reads.append(arguments)
        if len(reads) >= 300:
            raise OSError(errno.EIO, "Input/output error")
        return pread(*arguments)
    os.pread = failing
"""


def test_a_disk_that_fails_on_one_node_requeues_without_that_node(
    cluster, tiny_shards, run_dir, tmp_path
):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(FAILING_DISK)
    config = tiny_config(tiny_shards, run_dir, total_steps=LONG, num_workers=0)
    job = submit(config, "--nodes=2", f"--setup=export PYTHONPATH={trap}")
    wait_for(lambda: records_of(run_dir).read("requeued"), SECONDS)
    (requeued,) = records_of(run_dir).read("requeued")
    assert requeued["step"] > 0
    assert "and a disk failed, without n2, where it failed alone" in log_of(run_dir, job)
    wait_for(lambda: job_fields(job)["ExcNodeList"] == "n2", SECONDS)


def test_a_controller_that_restarts_is_not_noticed(cluster, tiny_shards, run_dir):
    job = submit(tiny_config(tiny_shards, run_dir, total_steps=LONG), "--nodes=2")
    wait_for_steps(run_dir, 3)
    cluster.restart_controller()
    cluster.run("scancel", "--signal=USR2", job)
    go_on(cluster, job)
    wait_for(lambda: len(records_of(run_dir).read("started")) == 2, SECONDS)


TRAP = """
import os
if os.environ.get("SLURM_PROCID") == "1":
    import signal
    from pix2pix.training.step import AdversarialStep
    step = AdversarialStep.__call__
    def trapped(self, micro_batches):
        if self.state.step == 3:
            {deed}
        return step(self, micro_batches)
    AdversarialStep.__call__ = trapped
"""


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (
            "raise OSError('the disk is on fire')",
            "the first error of job {job}: rank 1 of 2 on n2: OSError: the disk is on fire",
        ),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "all nodes are well, so it ended for reasons of its own",
        ),
    ],
)
def test_a_rank_that_fails_ends_the_job_at_once_and_is_told(
    cluster, tiny_shards, run_dir, tmp_path, deed, told
):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(TRAP.format(deed=deed))
    config = tiny_config(tiny_shards, run_dir, total_steps=LONG, checkpoint_every=2)
    job = submit(config, "--nodes=2", f"--setup=export PYTHONPATH={trap}")
    wait_for_state(job, "FAILED")
    assert log_of(run_dir, job).splitlines()[-1].startswith(told.format(job=job))
    assert records_of(run_dir).read("requeued") == []


def test_a_run_directory_has_one_job_at_a_time(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir)
    job = submit(config, "--sbatch=hold")
    with pytest.raises(AssertionError, match=f"job {job} is at work on"):
        submit(config)
    cluster.run("scancel", job)
    wait_for_state(job, "CANCELLED")
    assert submit(config, "--sbatch=hold") != job


TOLD_THAT_TIME_IS_OVER = """
import os, signal
from slurm import snapshot
snapshot.check_snapshot = lambda path: os.kill(os.getpid(), signal.SIGUSR2)
"""


@pytest.mark.parametrize("kind", ["evaluate", "part", "merge"])
def test_a_warning_of_slurm_ends_no_job_that_has_no_time_limit(
    kind, tiny_shards, trained_run, tmp_path
):
    """submitit's handler multiplies the limit, which is None. Its own process, without SLURM."""
    folder, shards = tmp_path / "jobs", tmp_path / "shards"
    parts = MakeShardsOptions(
        photos=write_folder(tmp_path / "photos", 4, width=90, height=72),
        out=shards,
        split="train",
        short_side=72,
        num_workers=1,
        part="1/1",
    )
    evaluation = EvaluateOptions(
        run_dir=trained_run, shards=(str(tiny_shards),), out=tmp_path / "report.json"
    )
    if kind == "merge":
        make_shards(parts)
    jobs = {
        "evaluate": EvaluateJob(evaluation, folder),
        "part": PartJob(parts, folder),
        "merge": MergeJob(MergeShardsOptions(shards=shards), folder),
    }
    folder.mkdir()
    submission = DelayedSubmission(jobs[kind])
    submission.set_timeout(None, 3)
    submission.dump(folder / "7_submitted.pkl")
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "sitecustomize.py").write_text(TOLD_THAT_TIME_IS_OVER)
    local = {"JOB_ID": 7, "NTASKS": 1, "GLOBALID": 0, "LOCALID": 0}
    ended = subprocess.run(
        [sys.executable, "-m", "submitit.core._submit", folder],
        cwd=ROOT,
        env=ENVIRONMENT
        | {f"SUBMITIT_LOCAL_{name}": str(value) for name, value in local.items()}
        | {"SUBMITIT_EXECUTOR": "local", "PYTHONPATH": f"{tmp_path / 'trap'}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "SIGUSR2: going on as long as SLURM permits" in ended.stdout
    made = {"evaluate": "report.json", "part": "shards/train-000000.tar"}
    assert (tmp_path / made.get(kind, "shards/manifest.json")).exists()


def test_two_nodes_evaluate_to_the_report_of_one_process(cluster, tiny_shards, run_dir):
    run_ranks(fit, 1, tiny_config(tiny_shards, run_dir))
    flags = [f"--run_dir={run_dir}", f"--shards={tiny_shards}"]
    one, two = run_dir.with_name("one.json"), run_dir.with_name("two.json")
    run("scripts/evaluate.py", *flags, f"--out={one}")
    told = run("-m", "slurm.submit", "evaluate", "--nodes=2", *flags, f"--out={two}")
    wait_for_state(re.search(r"job (\d+) is queued", told)[1], "COMPLETED")
    reports = [json.loads(path.read_text()) for path in (one, two)]
    for name in METRICS:
        assert reports[1][name] == pytest.approx(reports[0][name], abs=1e-9)


def test_status_tells_what_slurm_and_the_run_know(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir, total_steps=LONG)
    job = submit(config, "--nodes=2")
    wait_for_steps(run_dir, 3)
    told = run("-m", "slurm.status", f"--runs={run_dir.parent}")
    elsewhere = run("-m", "slurm.status", f"--runs={run_dir.parent / 'empty'}")
    assert job in elsewhere  # in the queue, wherever it lies
    row = next(line for line in told.splitlines() if line.startswith("a run"))
    assert row.split()[2:6] == [job, "RUNNING", "0", "2"]
    assert f"/{LONG}" in row
    cluster.run("scancel", job)
    wait_for_state(job, "CANCELLED")
    assert "state    CANCELLED" in run("-m", "slurm.status", str(run_dir))
