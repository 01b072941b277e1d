"""The SLURM that other tests run on is a real one, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pix2pix.errors import UserError
from slurm.local import cluster as local_cluster
from slurm.local import processes as local_processes
from slurm.local.cluster import LocalCluster, use_local_cluster
from slurm.local.processes import processes_of, wait_until

ROOT = Path(__file__).parents[2]
SECONDS = 60  # for a job to get somewhere: several times what it takes on one busy core

system = pytest.mark.system
pytestmark = pytest.mark.timeout(180)


def submit(cluster: LocalCluster, script: str, *flags: str) -> str:
    """Queue a shell script; returns the job's id."""
    return cluster.run(
        "sbatch", "--parsable", "--output=/dev/null", *flags, f"--wrap={script}"
    ).strip()


def job(cluster: LocalCluster, job_id: str) -> dict[str, str]:
    told = cluster.run("scontrol", "--oneliner", "show", "job", job_id)
    return dict(word.split("=", 1) for word in told.split() if "=" in word)


def wait_for(cluster: LocalCluster, job_id: str, **fields: str) -> None:
    """Return when `scontrol show job` shows these fields."""
    wait_until(lambda: fields.items() <= job(cluster, job_id).items(), SECONDS)


def wait_for_lines(file: Path, count: int) -> list[str]:
    """The lines of a file that jobs write, once there are `count`."""

    def lines() -> list[str]:
        return file.read_text().splitlines() if file.exists() else []

    wait_until(lambda: len(lines()) >= count, SECONDS)
    return lines()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its path is short enough for sockets, other than `tmp_path`, which names the test."""
    return tmp_path_factory.mktemp("slurm")


def processes(cluster: LocalCluster) -> list[local_processes.Process]:
    return processes_of(cluster.root / "slurm.conf")


@system
def test_a_job_runs_on_every_node_with_its_own_gpus_and_accounting_knows_it(cluster, tmp_path):
    words = (
        "srun bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID $SLURM_LOCALID $CUDA_VISIBLE_DEVICES'"
    )
    job_id = submit(
        cluster,
        f"{words} > {tmp_path}/words",
        *("--wait", "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2"),
    )
    told = sorted((tmp_path / "words").read_text().splitlines())
    assert told == ["n1 0 0 0,1", "n1 1 1 0,1", "n2 2 0 0,1", "n2 3 1 0,1"]
    flags = ["--noheader", "--parsable2", "--allocations", f"--jobs={job_id}"]
    accounts = ["sacct", *flags, "--format=State,NNodes"]
    wait_until(lambda: cluster.run(*accounts) == "COMPLETED|2\n", SECONDS)


@system
def test_arrays_and_dependencies_work(cluster, tmp_path):
    file = tmp_path / "parts"
    array = submit(cluster, f"echo $SLURM_ARRAY_TASK_ID >> {file}", "--array=0-2")
    submit(cluster, f"echo merge >> {file}", "--wait", f"--dependency=afterok:{array}")
    *parts, last = file.read_text().splitlines()
    assert (sorted(parts), last) == (["0", "1", "2"], "merge")


@system
def test_a_job_of_a_dead_node_is_requeued_and_starts_again_elsewhere(cluster, tmp_path):
    file = tmp_path / "nodes"
    job_id = submit(cluster, f"echo $SLURMD_NODENAME >> {file}; sleep 300", "--nodes=1")
    (node,) = wait_for_lines(file, 1)

    def on_node() -> list[str]:
        return [process.program for process in processes(cluster) if process.node == node]

    assert on_node()[:2] == ["slurmd", "slurmstepd"]
    assert "sleep" in on_node()
    cluster.kill_node(node)
    wait_until(lambda: on_node() == [], seconds=5)
    wait_for(cluster, job_id, JobState="PENDING", Restarts="1")
    assert node_states(cluster)[node].startswith("down")
    cluster.skip_requeue_wait(job_id)
    assert wait_for_lines(file, 2)[1] != node
    cluster.restart_node(node)
    assert node_states(cluster)[node] == "idle"


def node_states(cluster: LocalCluster) -> dict[str, str]:
    told = cluster.run("sinfo", "--noheader", "--Node", "--format=%N %T")
    return dict(line.split() for line in told.splitlines())


@system
def test_a_job_runs_on_while_the_controller_restarts(cluster, tmp_path):
    file = tmp_path / "words"
    wait_for_go = f"until test -e {tmp_path}/go; do sleep 0.1; done"
    script = f"echo started >> {file}; {wait_for_go}; echo ended >> {file}"
    job_id = submit(cluster, script)
    wait_for_lines(file, 1)
    before = {process.pid for process in processes(cluster) if process.program == "slurmctld"}
    cluster.restart_controller()
    assert before
    assert not before & {process.pid for process in processes(cluster)}
    wait_for(cluster, job_id, JobState="RUNNING")
    (tmp_path / "go").touch()
    wait_for(cluster, job_id, JobState="COMPLETED", Restarts="0")
    assert file.read_text() == "started\nended\n"


@system
def test_an_urgent_job_preempts_with_a_signal_and_the_other_starts_again(cluster, tmp_path):
    file = tmp_path / "words"
    task = f'trap "echo TERM >> {file}" TERM; echo started >> {file}; while :; do sleep 0.1; done'
    first = submit(cluster, f"srun bash -c '{task}'", "--nodes=2", "--exclusive")
    wait_for_lines(file, 2)
    second = submit(cluster, "sleep 300", "--nodes=2", "--partition=urgent")
    assert wait_for_lines(file, 4)[2:] == ["TERM", "TERM"]
    wait_for(cluster, second, JobState="RUNNING")
    wait_for(cluster, first, JobState="PENDING", Restarts="1")
    cluster.run("scancel", second)
    cluster.skip_requeue_wait(first)
    wait_until(lambda: file.read_text().count("started") == 4, SECONDS)


@system
def test_two_clusters_run_side_by_side_and_one_that_stops_leaves_no_process(cluster, folder):
    other = LocalCluster(folder)
    assert not other.is_running()
    other.start(num_nodes=1, gpus_per_node=0)
    try:
        assert other.run("sinfo", "--noheader", "--format=%D %G").splitlines()[0] == "1 (null)"
        assert (
            cluster.run("sinfo", "--noheader", "--format=%D %G").splitlines()[0] == "2 gpu:a100:2"
        )
        with pytest.raises(UserError, match="runs already"):
            other.start()
        submit(other, "sleep 300")
        wait_until(lambda: "RUNNING" in other.run("squeue", "--format=%T"), SECONDS)
    finally:
        other.stop()
    assert not other.is_running()
    assert running_programs(other.root) == ""
    assert "Shutdown complete" in (folder / "mariadbd.out").read_text()
    assert cluster.run("squeue", "--noheader") == ""


def running_programs(folder: Path) -> str:
    """Command lines that name a folder."""
    processes = psutil.process_iter(["cmdline"])
    lines = (" ".join(process.info["cmdline"] or ()) for process in processes)
    return "\n".join(line for line in lines if str(folder) in line)


START_AND_WAIT = """
import sys, time
from pathlib import Path
from slurm.local.cluster import LocalCluster
with LocalCluster(Path(sys.argv[1])):
    print("up", flush=True)
    time.sleep(300)
"""


@system
def test_a_cluster_ends_when_its_process_is_killed_and_starts_anew(folder):
    cluster = LocalCluster(folder)
    # In so short an environment, a slurmstepd overwrites all that tells whose it is.
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, str(folder)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"up\n"
        submit(cluster, "sleep 300")
        programs = ["slurmstepd", "sleep"]
        wait_until(lambda: {*programs} <= {p.program for p in processes(cluster)}, SECONDS)
        process.kill()
    wait_until(lambda: not cluster.is_running(), SECONDS)
    try:
        for first_line in (
            f"started a cluster in {folder}",
            f"the cluster in {folder} runs already",
        ):
            told = command("start", folder, "--nodes=1").splitlines()
            assert told[0] == first_line
            assert told[-1] == f"export SLURM_CONF={folder}/slurm.conf"
        assert cluster.run("squeue", "--noheader") == ""
        assert "idle n1" in command("status", folder)
        assert command("stop", folder) == f"stopped the cluster in {folder}\n"
        assert not cluster.is_running()
    finally:
        cluster.stop()


@system
def test_a_cluster_is_found_while_it_runs_unless_another_one_is_known(
    running_cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(local_cluster, "SYSTEM_CONFIGURATION", tmp_path / "slurm.conf")
    monkeypatch.setenv("SLURM_CONF", "/of/the/user")
    use_local_cluster(running_cluster.root)
    assert os.environ["SLURM_CONF"] == "/of/the/user"
    monkeypatch.delenv("SLURM_CONF")
    use_local_cluster(tmp_path)
    assert "SLURM_CONF" not in os.environ
    use_local_cluster(running_cluster.root)
    assert os.environ["SLURM_CONF"] == running_cluster.environment["SLURM_CONF"]
    monkeypatch.delenv("SLURM_CONF")
    (tmp_path / "slurm.conf").touch()
    use_local_cluster(running_cluster.root)
    assert "SLURM_CONF" not in os.environ


def test_missing_programs_are_named_with_their_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(local_processes, "SEARCH_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no slurmd, .*apt-get install slurm-wlm slurmdbd maria"):
        LocalCluster(tmp_path / "cluster").start()
    assert not (tmp_path / "cluster").exists()


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("of_others", "holds something else"),
        ("of_others/slurm.conf", "holds something else"),
        ("a" * 80, "at most 75"),
        ("a b", "no spaces"),
    ],
)
def test_a_folder_that_will_not_do_is_refused_and_left_as_it_is(
    tmp_path, monkeypatch, folder, message
):
    monkeypatch.setattr(local_cluster, "require_programs", lambda: None)
    (tmp_path / "of_others").mkdir()
    (tmp_path / "of_others" / "slurm.conf").write_text("ClusterName=theirs\n")
    with pytest.raises(UserError, match=message):
        LocalCluster(tmp_path / folder).start()
    assert (tmp_path / "of_others" / "slurm.conf").read_text() == "ClusterName=theirs\n"


def test_the_command_tells_that_there_is_none(tmp_path):
    for verb, status in [("stop", 0), ("status", 1)]:
        assert command(verb, tmp_path, status=status) == f"there is no cluster in {tmp_path}\n"


def command(verb: str, folder: Path, *flags: str, status: int = 0) -> str:
    """What `python -m slurm.local.cluster` prints, which ends with `status` and no complaint."""
    ended = subprocess.run(
        [sys.executable, "-m", "slurm.local.cluster", verb, "--dir", str(folder), *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (status, "")
    return ended.stdout
