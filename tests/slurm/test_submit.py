"""Promises of slurm.submit without a cluster: checks before queueing, scripts, jobs run here."""

import json
import os
import pickle
import re
import shlex
import subprocess
import sys

import pytest

from pix2pix.run.run_directory import RunDirectory
from slurm.job import TrainJob
from slurm.process_group import Member
from slurm.records import Records
from slurm.scheduler import outside_of_any_job
from tests.data.shard_server import ShardServer
from tests.slurm.commands import sbatch_lines, script_of, submit, train
from tests.small_training import tiny_config
from tests.training.test_launcher import ENVIRONMENT, ROOT, logged_steps


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


def test_a_dry_run_shows_script_and_configuration_and_writes_nothing(capsys, tiny_shards, run_dir):
    flags = "--nodes=2 --gpus_per_node=4 --cpus_per_task=8 --time=1-12:00:00 --partition=gpu"
    command = [*train(tiny_shards, run_dir, global_batch=8), *flags.split()]
    status, shown, _ = submit(capsys, *command, "--sbatch=mail-type=END", "--dry_run")
    assert status == 0
    script = script_of(shown)
    lines = "--nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=8 --time=2160"
    lines += " --requeue --partition=gpu --signal=USR2@120 --mail-type=END --open-mode=append"
    assert set(lines.split()) <= set(sbatch_lines(script))
    srun = next(line for line in script.splitlines() if line.startswith("srun"))
    assert {"--kill-on-bad-exit=1", "--cpus-per-task=8"} <= set(shlex.split(srun))
    facts = json.loads(shown[shown.index("\n{") :])
    assert facts["config"]["total_steps"] == 4
    assert facts["cluster"]["nodes"] == 2
    assert f"export PYTHONPATH='{facts['snapshot']}'" in script
    assert not run_dir.exists()
    subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--nodse 2", "unknown flag --nodse; did you mean --nodes"),
        ("--nodes 0", "nodes must be at least 1"),
        ("--nodes 4", "global_batch 6 does not divide by 4 ranks"),
        ("--tasks_per_node 2 --gpus_per_node 3", "there is one rank for each GPU"),
        ("--time 2:0:0:0", "time takes minutes, or [D-]HH:MM:SS"),
        ("--time 2", "is over when it is time to save"),
        ("--sbatch MAIL", "sbatch takes NAME=VALUE or NAME"),
        ("--sbatch time=5", "for --sbatch time there is the flag --time"),
        ("--sbatch mem=5", "for --sbatch mem there is the flag --memory"),
        ("--sbatch gpus=4", "would change how this job counts its ranks"),
        ("--srun ntasks=4", "would change how this job counts its ranks"),
        ("--sbatch qx=1 --sbatch qx=2", "--sbatch qx is there 2 times"),
        ("--gres gpu:4 --sbatch gres=gpu:4", "are the same"),
        ("--gres gpu:4 --gpus_per_node 2", "gpus_per_node says 2; give one of the two"),
        ("--gres gpu:a100:4 --gpu_type v100", "contradict each other"),
        ("--gres gpu:4 --gpu_type v100", "write the type into gres: gpu:v100:4"),
        ("--gres gpu:a100:2,gpu:v100:2", "does not tell how many GPUs"),
        ("--gpu_type a100", "gpu_type a100 needs a number"),
        ("--gres gpu:2 --tasks_per_node 3", "there is one rank for each GPU"),
        ("--norm sync_batch", "norm sync_batch works on GPUs only"),
        ("--image_size 256", "image_size 256 is larger than the 64 px crops"),
        ("--shards elsewhere", "there is no folder"),
        ("--init_from elsewhere", "is not a run directory"),
        ("--cluster local --nodes 2", "cluster local is one node"),
        ("--cluster debug --tasks_per_node 2", "cluster debug is one rank"),
        ("--preset big", "clusters.yaml cannot be read"),
        ("", "this machine reaches no SLURM"),
    ],
)
def test_a_mistake_is_told_before_anything_is_queued(
    capsys, monkeypatch, tiny_shards, run_dir, flags, message
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(run_dir))
    words = flags.split()
    given = {word[2:] for word in words if word.startswith("--")}
    command = [flag for flag in train(tiny_shards, run_dir) if flag[2:].split("=")[0] not in given]
    status, _, told = submit(capsys, *command, *words)
    assert status == 2
    assert message in told
    assert not run_dir.exists()


def test_a_run_of_another_training_is_refused(capsys, tiny_shards, run_dir):
    RunDirectory(run_dir).claim(tiny_config(tiny_shards, run_dir, seed=3), "digest")
    (run_dir / "checkpoints" / "step_000000002").mkdir(parents=True)
    status, _, told = submit(capsys, *train(tiny_shards, run_dir), "--dry_run")
    assert status == 2
    assert "belongs to another training (seed: 3 there, 0 here" in told


def test_presets_hold_cluster_flags_and_a_flag_wins(capsys, tiny_shards, run_dir, tmp_path):
    presets = tmp_path / "mine.yaml"
    presets.write_text(
        "big:\n  nodes: 2\n  partition: gpu\n  setup: |\n    module load cuda\n    ulimit -n 4096\n"
        "  sbatch: ['mail-type=END,FAIL', exclusive]\n  srun: [label]\nodd:\n  seed: 3\n"
    )
    command = [*train(tiny_shards, run_dir), "--dry_run", f"--presets={presets}"]
    _, shown, _ = submit(capsys, *command, "--preset=big", "--partition=cpu")
    script = script_of(shown)
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --partition=cpu\n" in script
    assert {"--exclusive", "--mail-type=END,FAIL"} <= set(sbatch_lines(script))
    assert " --label " in script
    assert "\nmodule load cuda\nulimit -n 4096\nexport PYTHONPATH" in script
    status, _, told = submit(capsys, *command, "--preset=odd")  # only cluster flags
    assert status == 2
    assert "mine.yaml:10: unknown setting seed" in told


def test_debug_trains_in_this_process_and_once(capsys, tiny_shards, run_dir):
    command = [sys.executable, "-m", "slurm.submit", *train(tiny_shards, run_dir)]
    told = subprocess.run(
        [*command, "--cluster=debug"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == f"finished at step 4: {run_dir}"
    status, shown, _ = submit(capsys, *train(tiny_shards, run_dir))
    assert (status, shown) == (0, "this run is finished (step 4): nothing to submit\n")


def test_a_job_survives_pickling(tiny_shards, run_dir):
    job = TrainJob(tiny_config(tiny_shards, run_dir), run_dir)
    assert pickle.loads(pickle.dumps(job)) == job


def test_what_is_imported_before_the_signals_are_heard_has_no_torch():
    code = "import sys, slurm.job, slurm.shards_job, slurm.submit; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "accelerate", "submitit"} & set(told.stdout.split())


def test_a_job_around_the_submission_is_hidden_and_the_cluster_is_not(monkeypatch):
    of_a_job = ("SLURM_JOB_ID", "SLURMD_NODENAME", "SRUN_CPUS_PER_TASK", "RANK", "MASTER_PORT")
    of_the_user = ("SLURM_CONF", "SBATCH_ACCOUNT", "PATH")
    for name in (*of_a_job, *of_the_user):
        monkeypatch.setenv(name, "x")
    with outside_of_any_job({"MORE": "1"}):
        assert not set(of_a_job) & os.environ.keys()
        assert {*of_the_user, "MORE"} <= os.environ.keys()
    assert set(of_a_job) <= os.environ.keys()
    assert "MORE" not in os.environ


def test_ranks_of_this_machine_run_the_snapshot(capsys, tiny_shards, run_dir):
    command = [*train(tiny_shards, run_dir), "--cluster=local", "--tasks_per_node=2"]
    status, shown, told = submit(capsys, *command)
    assert status == 0, told
    job = re.search(r"job (\d+) runs \(nodes × ranks: 1 × 2\)", shown)[1]
    assert "training on 2 × cpu" in (run_dir / "slurm" / f"{job}_0_log.out").read_text()
    assert logged_steps(run_dir) == [1, 2, 3, 4]
    (snapshot,) = (run_dir / "snapshots").iterdir()
    (submitted,) = Records(run_dir / "slurm").read("submitted")
    assert submitted["snapshot"] == str(snapshot)


def test_a_rank_that_fails_here_is_told(capsys, tiny_shards, run_dir, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for path in tiny_shards.iterdir():
        data = path.read_bytes()
        if path.name == "train-000001.tar":  # as long as it was, so that only decoding finds out
            data = data.replace(b"\xff\xd8\xff", bytes(3))
        (shards / path.name).write_bytes(data)
    status, _, told = submit(capsys, *train(shards, run_dir), "--cluster=local")
    assert status == 2
    assert "error: rank 0 of 1 on this machine: UserError: " in told
    assert "train-000001.tar" in told


def test_a_member_is_read_from_a_step_of_slurm():
    member = Member.of(
        {
            "SUBMITIT_EXECUTOR": "slurm",
            "SLURM_JOB_ID": "12",
            "SLURM_RESTART_COUNT": "3",
            "SLURM_PROCID": "5",
            "SLURM_LOCALID": "1",
            "SLURM_NODEID": "2",
            "SLURM_STEP_NUM_TASKS": "6",
            "SLURM_STEP_NUM_NODES": "3",
            "SLURM_STEP_TASKS_PER_NODE": "2(x2),2",
            "SLURMD_NODENAME": "n3",
            "SLURM_CPUS_PER_TASK": "4",
            "SLURM_NTASKS": "99",  # of the job, or of one around it
        }
    )
    assert (member.rank, member.world_size, member.local_rank, member.local_world_size) == (
        5,
        6,
        1,
        2,
    )
    assert (member.attempt, member.name, member.num_cores) == ("12_3", "rank 5 of 6 on n3", 4)
    assert Member.of({}) == Member()


def test_places_of_shards_are_left_to_the_nodes(capsys, monkeypatch, tiny_shards, run_dir):
    monkeypatch.chdir(tiny_shards.parent)
    command = train("shards", run_dir, shards_cache="$SLURM_TMPDIR/shards")
    status, shown, _ = submit(capsys, *command, "--dry_run")
    assert status == 0
    config = json.loads(shown[shown.index("\n{") :])["config"]
    assert config["shards"] == [str(tiny_shards)]
    assert config["shards_cache"] == "$SLURM_TMPDIR/shards"
    with ShardServer(tiny_shards) as server:
        monkeypatch.setenv("PATH", os.defpath)  # where curl is
        command = train(server.url, run_dir)
        status, shown, _ = submit(capsys, *command, "--dry_run")
    assert status == 0
    assert json.loads(shown[shown.index("\n{") :])["config"]["shards"] == [server.url]
    assert server.tars == {}  # submission fetches the manifest alone


def test_a_dry_run_says_what_the_training_costs(capsys, tiny_shards, run_dir):
    command = [*train(tiny_shards, run_dir, global_batch=8), "--nodes=2", "--gpus_per_node=4"]
    status, shown, told = submit(capsys, *command, "--dry_run")
    assert status == 0
    assert "ranks 8, each sees 4 photographs" in told
    assert "estimate" not in shown  # neither job nor configuration has the flag
    assert "disk for checkpoints" in told
    status, _, told = submit(capsys, *command, "--estimate")
    assert status == 2
    assert "--estimate measures for --dry_run" in told
    assert not run_dir.exists()
