"""Promises of a job before its ranks meet."""

import subprocess
import sys

import pytest

JOB = """
import sys
from pathlib import Path

from pix2pix.config import TrainConfig
from pix2pix.data import loader_server
from pix2pix.evaluation.report import EvaluateOptions
from slurm.job import EvaluateJob, TrainJob

loader_server.start = lambda: sys.exit("first" if "torch" not in sys.modules else "too late")
folder = Path(sys.argv[1])
if sys.argv[2] == "train":
    job = TrainJob(TrainConfig(shards=("s",), run_dir=folder, total_steps=1), folder=folder)
else:
    job = EvaluateJob(EvaluateOptions(run_dir=folder, shards=("s",), out=folder / "o"), folder)
job()
"""


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_the_server_of_loader_workers_imports_torch_while_the_job_does(tmp_path, kind):
    command = [sys.executable, "-c", JOB, str(tmp_path), kind]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stderr.strip() == "first"
