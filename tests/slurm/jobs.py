"""Jobs of tests: submitted by the real command to a real SLURM, and waited for."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from slurm.local.cluster import LocalCluster
from slurm.records import Records
from slurm.scheduler import job_state
from tests.training.test_launcher import ENVIRONMENT, ROOT, logged_steps, wait_for

LONG = 3000  # steps: more than any test has time for
SECONDS = 120
SETTLE_SECONDS = 4  # for messages about the last start, which would end the next: why SLURM waits


def records_of(run_dir: Path) -> Records:
    return Records(run_dir / "slurm")


def flags_of(config, **changes) -> list[str]:
    """A flag for each field; the tests have one folder of shards."""
    (shards,) = config.shards
    values = config.to_json() | {"shards": shards} | changes
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


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
