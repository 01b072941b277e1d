"""Promises on a real SLURM: submitted trainings arrive, whatever happens to them on the way."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pix2pix.evaluation.evaluation import METRICS
from slurm.local.cluster import LocalCluster
from slurm.records import Records
from slurm.scheduler import job_fields, job_state
from tests.photographs import write_folder
from tests.ranks import run_ranks
from tests.small_training import fit, tensor_digests, tiny_config, trainer_of
from tests.training.test_launcher import ENVIRONMENT, ROOT, logged_steps, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

LONG = 3000  # steps: more than any test has time for
SECONDS = 120
SETTLE_SECONDS = 4  # for messages about the last start, which would end the next: why SLURM waits


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "a run"  # with a space, as people have them


def records_of(run_dir: Path) -> Records:
    return Records(run_dir / "slurm")


def flags_of(config) -> list[str]:
    given = {name: value for name, value in config.to_json().items() if value is not None}
    return [f"--{name}={value}" for name, value in given.items()]


def run(*command: str) -> str:
    """What a Python command of ours prints, on the cluster of this test."""
    environment = ENVIRONMENT | {"SLURM_CONF": os.environ["SLURM_CONF"]}
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def submit(config, *cluster: str) -> str:
    """The id of the queued job; `cluster` says on what."""
    return re.search(r"job (\d+) is queued", told_at_submission(config, *cluster))[1]


def told_at_submission(config, *cluster: str) -> str:
    """What is printed in one line.

    A core each, as ranks in tests have: with another number of threads, sums differ in last bits.
    """
    command = ("slurm.submit", "train", "--cpus_per_task=1", *cluster)
    return " ".join(run("-m", *command, *flags_of(config)).split())


def wait_for_state(job: str, *states: str) -> None:
    def is_there() -> bool:
        return job_state(job)[0] in states

    wait_for(is_there, SECONDS)


def wait_for_steps(run_dir: Path, number: int) -> None:
    wait_for(lambda: logged_steps(run_dir)[-1:] >= [number], SECONDS)


def go_on(cluster: LocalCluster, job: str) -> None:
    """Start the requeued job soon, not in two minutes."""
    wait_for(lambda: job_state(job) == ("PENDING", "BeginTime"), SECONDS)
    time.sleep(SETTLE_SECONDS)
    cluster.skip_requeue_wait(job)


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
    assert "not requeued: it is cancelled" in log_of(run_dir, job)


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


@pytest.mark.parametrize(
    ("flags", "fields", "told"),
    [
        (
            ["--nodes=2"],
            {"TimeLimit": "UNLIMITED", "NumTasks": "2", "Partition": "main"},
            "each start may run without a limit",
        ),
        (["--partition=urgent"], {}, "each start may run 30:00, what partition urgent gives"),
        (["--time=2:00:00"], {"TimeLimit": "02:00:00"}, "each start may run 2:00:00"),
        (["--nodes=2", "--gres=gpu:a100:2"], {"TresPerNode": "gres:gpu:a100:2"}, "may run"),
        (["--gpus_per_node=2", "--gpu_type=a100"], {"TresPerNode": "gres:gpu:a100:2"}, "may run"),
        (["--sbatch=gres=gpu:2", "--sbatch=nice=5"], {"TresPerNode": "gres:gpu:2"}, "may run"),
    ],
)
def test_slurm_takes_what_was_asked_for_and_no_more(
    cluster, tiny_shards, run_dir, flags, fields, told
):
    config = tiny_config(tiny_shards, run_dir, global_batch=8)
    said = told_at_submission(config, "--sbatch=hold", *flags)
    job = re.search(r"job (\d+) is queued", said)[1]
    assert told in said
    known = job_fields(job)
    assert {name: known.get(name) for name in fields} == fields
    asks_for_gpus = "TresPerNode" in fields
    assert ("no GPU is asked for" in said) is not asks_for_gpus
    nodes = 2 if "--nodes=2" in flags else 1
    assert known["NumTasks"] == str(2 * nodes if asks_for_gpus else nodes)


def test_a_type_of_gpu_that_is_not_there_is_refused_before_it_is_queued(
    cluster, tiny_shards, run_dir
):
    with pytest.raises(AssertionError, match="SLURM would not take this job"):
        submit(tiny_config(tiny_shards, run_dir, global_batch=8), "--gres=gpu:h100:2")
    with pytest.raises(AssertionError, match=r"is over when it is\s+time to save"):
        submit(tiny_config(tiny_shards, run_dir), "--partition=urgent", "--save_seconds=1800")


CONTAINER = """\
#!/bin/bash
# In place of Pyxis: takes its flag away, and gives the ranks a PATH of their own.
arguments=()
for argument; do
  case $argument in
    --container-image=torch.sqsh) in_container=1 ;;
    *) arguments+=("$argument") ;;
  esac
done
[ "$in_container" ] && export PATH={folder}/container
exec {srun} "${{arguments[@]}}"
"""


def test_a_job_in_a_container_runs_its_python_and_is_requeued_from_outside(
    cluster, tiny_shards, run_dir, tmp_path
):
    """The container has a Python, and no program of SLURM."""
    python = f'#!/bin/bash\nexport IN_CONTAINER=1\nexec {sys.executable} "$@"\n'
    srun = CONTAINER.format(folder=tmp_path, srun=shutil.which("srun"))
    for name, script in (("container/python", python), ("outside/srun", srun)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    config = tiny_config(tiny_shards, run_dir, total_steps=LONG)
    setup = f"--setup=export PATH={tmp_path}/outside:$PATH"
    job = submit(config, "--srun=container-image=torch.sqsh", setup)
    wait_for_steps(run_dir, 3)
    (rank,) = [p for p in Path("/proc").glob("[0-9]*") if is_rank_of(p, run_dir)]
    assert "IN_CONTAINER=1" in (rank / "environ").read_text().split("\0")
    cluster.run("scancel", "--signal=USR2", job)
    wait_for_state(job, "PENDING")
    (requeued,) = records_of(run_dir).read("requeued")
    assert requeued["step"] >= 3


def is_rank_of(process: Path, run_dir: Path) -> bool:
    try:
        words = (process / "cmdline").read_text().split("\0")
    except OSError:
        return False
    return words[0] == sys.executable and f"{run_dir}/slurm" in words


def test_a_submission_from_inside_a_job_knows_nothing_of_it(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir)
    command = [sys.executable, "-m", "slurm.submit", "train", "--nodes=2", *flags_of(config)]
    script = run_dir.parent / "outer.sh"
    quoted = " ".join(f"'{word}'" for word in command)
    log = run_dir.parent / "outer.log"
    script.write_text(f"#!/bin/bash\ncd {ROOT}\nexport PYTHONPATH=.\nsrun -n1 {quoted}\n")
    outer = ["--nodes=1", "--ntasks=3", "--mem=100", f"--output={log}"]
    cluster.run("sbatch", *outer, str(script))
    wait_for(lambda: "is queued" in (log.read_text() if log.exists() else ""), SECONDS)
    inner = re.search(r"job (\d+) is queued", log.read_text())[1]
    wait_for_state(inner, "COMPLETED")
    (started,) = records_of(run_dir).read("started")
    assert (started["nodes"], started["ranks"], started["restarts"]) == (2, 2, 0)


def test_a_run_directory_has_one_job_at_a_time(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir)
    job = submit(config, "--sbatch=hold")
    with pytest.raises(AssertionError, match=f"job {job} is at work on"):
        submit(config)
    cluster.run("scancel", job)
    wait_for_state(job, "CANCELLED")
    assert submit(config, "--sbatch=hold") != job


def test_an_array_of_machines_makes_the_shards_of_one(cluster, tmp_path):
    photos = write_folder(tmp_path / "photos", 23, width=90, height=72)
    flags = [f"--photos={photos}", "--split=train", "--short_side=72", "--samples_per_shard=4"]
    one, many = tmp_path / "one", tmp_path / "many"
    run("-m", "data_prep.make_shards", *flags, f"--out={one}")
    told = run("-m", "slurm.submit", "shards", "--parts=3", *flags, f"--out={many}")
    merge = re.search(r"\(3 parts\) and (\d+) \(the merge\) are queued", told)[1]
    wait_for_state(merge, "COMPLETED")
    files, theirs = (
        {path.name: path.read_bytes() for path in folder.glob("[!.]*")} for folder in (one, many)
    )
    assert theirs == files
    assert "manifest.json" in files


FAILING_PART = """
import os
if os.environ.get("SLURM_ARRAY_TASK_ID") == "1":
    from data_prep import make_shards
    def fail(options):
        raise OSError("the disk is on fire")
    make_shards.make_shards = fail
"""


def test_a_part_that_fails_cancels_the_merge_which_says_why(cluster, tmp_path):
    photos = write_folder(tmp_path / "photos", 9, width=90, height=72)
    out, trap = tmp_path / "shards", tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(FAILING_PART)
    flags = [f"--photos={photos}", "--split=train", "--short_side=72", "--samples_per_shard=4"]
    command = ["-m", "slurm.submit", "shards", "--parts=3", *flags, f"--out={out}"]

    def merge_of(told: str) -> str:
        return re.search(r"and (\d+) \(the merge\) are queued", told)[1]

    merge = merge_of(run(*command, f"--setup=export PYTHONPATH={trap}"))
    wait_for_state(merge, "CANCELLED")
    log = (tmp_path / "shards.jobs" / f"{merge}_0_log.out").read_text()
    assert "no merge, because of part 2: rank 0 of 1 on n" in log
    assert "OSError: the disk is on fire. The same command makes what is missing" in log
    assert not (out / "manifest.json").exists()
    wait_for_state(merge_of(run(*command)), "COMPLETED")
    assert (out / "manifest.json").exists()


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
