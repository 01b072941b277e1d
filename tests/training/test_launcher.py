"""The commands as people start them: the real launcher, real signals, and the status at the end."""

import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from pix2pix.evaluation.evaluation import METRICS

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable]
LAUNCHER = [str(Path(sys.executable).with_name("accelerate")), "launch", "--main_process_port", "0"]
TWO = ["--multi_gpu", "--num_processes", "2"]
ENVIRONMENT = {
    **os.environ,
    "ACCELERATE_USE_CPU": "true",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(ROOT),
}
SECONDS = 120  # for a command to end: several times what it takes on one busy core

TINY = {
    "image_size": 64,
    "global_batch": 6,
    "generator_width": 4,
    "discriminator_width": 4,
    "num_workers": 1,
    "log_every": 1,
    "evaluate_every": 0,
    "total_steps": 4,
    "precision": "no",
}


def train(run_dir: Path, shards: Path, **changes) -> list[str]:
    flags = TINY | {"shards": shards, "run_dir": run_dir} | changes
    return ["scripts/train.py", *(f"--{name}={value}" for name, value in flags.items())]


def run(*command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The finished command, which ended with `status` in time."""
    ended = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
    )
    assert ended.returncode == status, ended.stderr
    return ended


@contextlib.contextmanager
def started(*command: str, mark: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A running command; it and whatever it started are killed in the end."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT | {"MARK": mark} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        for pid in alive(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def alive(mark: str) -> list[int]:
    """Processes with `mark` in their environment: launchers give workers sessions of their own."""
    processes = psutil.process_iter(["environ"])
    return [process.pid for process in processes if mark in str(process.info["environ"])]


def wait_for(condition, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def logged_steps(run_dir: Path) -> list[int]:
    file = run_dir / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line)["step"] for line in lines if "loss/generator_l1" in line]


@pytest.mark.parametrize(
    ("launcher", "world_size"), [(PYTHON, 1), (LAUNCHER, 1), ([*LAUNCHER, *TWO], 2)]
)
def test_training_says_first_where_it_runs_and_ends_with_0(
    tiny_shards, tmp_path, launcher, world_size
):
    ended = run(*launcher, *train(tmp_path / "run", tiny_shards))
    assert ended.stdout.splitlines()[0] == (
        f"training on {world_size} × cpu, precision fp32 (--precision)"
    )
    assert ended.stdout.splitlines()[-1] == f"finished at step 4: {tmp_path / 'run'}"
    assert "Traceback" not in ended.stderr
    assert logged_steps(tmp_path / "run") == [1, 2, 3, 4]


# A launcher of one process dies of the signal itself, and does not pass it on.
@pytest.mark.parametrize(
    ("launcher", "status"),
    [(PYTHON, 75), (LAUNCHER, -signal.SIGTERM), ([*LAUNCHER, *TWO], 1)],
)
def test_a_stopped_training_saves_leaves_no_process_and_goes_on(
    tiny_shards, tmp_path, launcher, status
):
    run_dir = tmp_path / "run"
    mark = str(run_dir)
    command = train(run_dir, tiny_shards, total_steps=5000)
    with started(*launcher, *command, mark=mark) as training:
        wait_for(lambda: len(logged_steps(run_dir)) >= 3)
        assert len(alive(mark)) > 1  # the workers too
        training.terminate()
        output = training.communicate(timeout=SECONDS)[0]
        assert training.returncode == status
        wait_for(lambda: not alive(mark), seconds=5)
    last = logged_steps(run_dir)[-1]
    assert f"stopped and saved at step {last}; the same command goes on" in output
    saved = [path.name for path in (run_dir / "checkpoints").iterdir()]
    assert saved == [f"step_{last:09d}"]
    ended = run(*launcher, *train(run_dir, tiny_shards, total_steps=last + 2))
    assert f"going on from step {last} " in ended.stdout
    assert logged_steps(run_dir) == list(range(1, last + 3))


@contextlib.contextmanager
def started_ranks(
    run_dir: Path,
    shards: Path,
    count: int,
    rank_variables: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
) -> Iterator[list[subprocess.Popen[str]]]:
    """`count` processes of one training, each with the variables that SLURM would give it.

    rank_variables: more of them, of single ranks.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    with contextlib.ExitStack() as stack:
        ranks = []
        for rank in range(count):
            places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            command = [*PYTHON, *train(run_dir, shards, total_steps=5000)]
            variables = address | places if count > 1 else {}
            variables |= rank_variables.get(rank, {})
            ranks.append(stack.enter_context(started(*command, mark=str(run_dir), **variables)))
        yield ranks


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_to_one_rank_saves_on_all_and_each_ends_with_75(
    tiny_shards, tmp_path, number, count
):
    run_dir = tmp_path / "run"
    with started_ranks(run_dir, tiny_shards, count) as ranks:
        wait_for(lambda: len(logged_steps(run_dir)) >= 3)
        ranks[-1].send_signal(number)
        outputs = [rank.communicate(timeout=SECONDS)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [75] * count, outputs
    last = logged_steps(run_dir)[-1]
    assert f"stopped and saved at step {last}; the same command goes on" in outputs[0]
    saved = [path.name for path in (run_dir / "checkpoints").iterdir()]
    assert saved == [f"step_{last:09d}"]


def test_workers_of_a_launcher_that_usr2_kills_save_and_end(tiny_shards, tmp_path):
    run_dir = tmp_path / "run"
    command = [*LAUNCHER, *TWO, *train(run_dir, tiny_shards, total_steps=5000)]
    with started(*command, mark=str(run_dir)) as launcher:
        wait_for(lambda: len(logged_steps(run_dir)) >= 3)
        launcher.send_signal(signal.SIGUSR2)
        assert launcher.wait(SECONDS) == -signal.SIGUSR2
        wait_for(lambda: not alive(str(run_dir)))
        last = logged_steps(run_dir)[-1]
        assert f"stopped and saved at step {last}" in launcher.communicate(timeout=SECONDS)[0]
    assert (run_dir / "checkpoints" / f"step_{last:09d}").is_dir()


def test_a_second_training_in_a_run_directory_is_refused_with_status_2(tiny_shards, tmp_path):
    command = [*PYTHON, *train(tmp_path / "run", tiny_shards, total_steps=5000)]
    with started(*command, mark=str(tmp_path)) as first:
        wait_for(lambda: len(logged_steps(tmp_path / "run")) >= 1)
        refused = run(*command, status=2)
        message = " ".join(refused.stderr.split())
        assert f"is being trained by {getpass.getuser()} on " in message
        assert f"process {first.pid})" in message
        first.send_signal(signal.SIGTERM)
        ended = run(*PYTHON, *train(tmp_path / "run", tiny_shards, total_steps=1))
        assert "nothing to do" in ended.stdout  # it has waited for the first to save
        assert first.wait(SECONDS) == 75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 7}, "error: unknown flag --sead; did you mean --seed"),
        ({"global_batch": 7}, "error: global_batch 7 does not divide by 2 ranks; use 6 or 8"),
        ({"run_dir": ROOT / "tests"}, "has files but no config.json, so it is not a run directory"),
    ],
)
def test_a_mistake_is_told_once_by_two_processes_which_end(tiny_shards, tmp_path, changes, message):
    flags = {"run_dir": tmp_path / "run"} | changes
    ended = run(*LAUNCHER, *TWO, *train(shards=tiny_shards, **flags), status=1)
    said = " ".join((ended.stdout + ended.stderr).split())
    assert said.count(message) == 1, said
    assert 'scripts/train.py", line' not in said  # no traceback of ours


def test_two_processes_evaluate_to_the_report_of_one(tiny_shards, tmp_path):
    run(*PYTHON, *train(tmp_path / "run", tiny_shards))
    command = ["scripts/evaluate.py", "--run_dir", tmp_path / "run", "--shards", tiny_shards]
    reports = []
    for launcher, name in ((PYTHON, "one.json"), ([*LAUNCHER, *TWO], "two.json")):
        run(*map(str, [*launcher, *command, "--out", tmp_path / name, "--batch_size", 2]))
        reports.append(json.loads((tmp_path / name).read_text()))
    one, two = reports
    assert one.keys() == two.keys()
    assert one["num_samples"] == two["num_samples"] == 7  # which two does not divide
    for name in METRICS:
        assert two[name] == pytest.approx(one[name], abs=1e-9)
        assert two["gray"][name] == pytest.approx(one["gray"][name], abs=1e-9)
