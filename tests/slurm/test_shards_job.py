"""Data preparation as an array of jobs on a real SLURM, with a merge after them."""

import re

import pytest

from slurm import shards_job
from slurm.records import Records
from slurm.scheduler import JobRow
from tests.photographs import write_folder
from tests.slurm.jobs import run, wait_for_state

system = pytest.mark.system
pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("rows", "errors", "told"),
    [
        (
            {"12_0": "COMPLETED", "12_1": "FAILED", "12_2": "TIMEOUT"},
            {"12_0_0": "an earlier start", "12_1_0": "OSError: no", "120_1_0": "another job"},
            ["part 2: OSError: no", "part 3: SLURM says TIMEOUT"],
        ),
        ({"12_[3-5]": "CANCELLED"}, {}, ["array tasks [3-5]: SLURM says CANCELLED"]),
        ({"12": "OUT_OF_MEMORY"}, {}, ["part 1: SLURM says OUT_OF_MEMORY"]),
        ({"12_0": "COMPLETING", "12_1": "COMPLETED"}, {}, []),
        ({}, {"12_1_0": "OSError: no"}, ["part 2: OSError: no"]),  # SLURM can't be asked
    ],
)
def test_each_part_that_failed_is_told_with_its_reason(tmp_path, monkeypatch, rows, errors, told):
    known = {job: JobRow(state, "00:01:00", "1") for job, state in rows.items()}
    monkeypatch.setattr(shards_job, "jobs", lambda ids: known)
    for attempt, error in errors.items():
        (tmp_path / f"{attempt}.error").write_text(f"{error}\n")
    assert shards_job.failed_parts(Records(tmp_path), "12") == told


@system
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


@system
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
