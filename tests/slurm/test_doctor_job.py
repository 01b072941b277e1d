"""The doctor on every node of a job: one table, whatever becomes of a node, and a real sum."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pix2pix.doctor.findings import Patient, fails, note, ok
from pix2pix.system.bounded import Ended
from slurm import doctor_job
from slurm.doctor_job import DoctorJob, rows_folder
from slurm.doctor_table import TableOptions, doctor_table
from slurm.process_group import Member
from slurm.records import Records
from tests.slurm.commands import submit
from tests.slurm.jobs import SECONDS, run, wait_for_state
from tests.training.test_launcher import ENVIRONMENT, ROOT

PYTHON = ok("Python", "3.12 on Linux")


def leave(folder: Path, name: str, node: str, *rows) -> None:
    place = rows_folder(folder, "7_0")
    place.mkdir(parents=True, exist_ok=True)
    content = {"node": node, "rows": [asdict(row) for row in rows]}
    (place / f"{name}.json").write_text(json.dumps(content))


def table_of(folder: Path, capsys, nodes: int = 2, **more) -> tuple[int, list[str]]:
    status = doctor_table(TableOptions(folder=folder, nodes=nodes, attempt="7_0", **more))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    return status, lines


def test_rows_that_all_nodes_share_stand_once_and_others_name_their_nodes(tmp_path, capsys):
    leave(tmp_path, "node_of_rank_00000", "n1", PYTHON, ok("step in fp32", "9 photographs/s"))
    leave(tmp_path, "node_of_rank_00002", "n2", PYTHON, ok("step in fp32", "8 photographs/s"))
    leave(tmp_path, "sum_of_rank_00000", "n1", ok("all-reduce (job)", "1.5 GB/s"))
    report = tmp_path / "report.json"
    status, lines = table_of(tmp_path, capsys, json=report)
    assert status == 0
    assert lines[0] == "2 nodes: n1, n2"
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "ok Python 3.12 on Linux",
        "ok step in fp32 n1: 9 photographs/s",
        "ok step in fp32 n2: 8 photographs/s",
        "ok all-reduce (job) 1.5 GB/s",
        "ready to train",
    ]
    assert json.loads(report.read_text())["rows"][0]["what"] == "Python"


def test_a_row_that_fails_on_one_node_fails_the_job(tmp_path, capsys):
    leave(tmp_path, "node_of_rank_00000", "n1", note("GPU", "none here"))
    leave(tmp_path, "node_of_rank_00001", "n2", fails("GPU", "torch sees none", "a driver"))
    status, lines = table_of(tmp_path, capsys)
    assert status == 1
    assert "not ready: GPU" in lines[-1]


def test_a_node_without_rows_is_a_row_with_the_error_of_its_rank(tmp_path, capsys):
    leave(tmp_path, "node_of_rank_00000", "n1", PYTHON)
    Records(tmp_path).tell_error("7_0", "rank 1 of 2 on n2", OSError("disk full"))
    status, lines = table_of(tmp_path, capsys)
    assert status == 1
    assert "1 of 2: no rows: rank 1 of 2 on n2: OSError: disk full" in " ".join(
        " ".join(lines).split()
    )


def test_a_job_of_which_nothing_is_left_is_a_row(tmp_path, capsys):
    status, lines = table_of(tmp_path, capsys)
    assert status == 1
    assert lines[0] == "2 nodes: none answered"


def test_ranks_do_not_wait_for_ever_for_a_node_that_gives_no_rows(tmp_path):
    leave(tmp_path, "node_of_rank_00000", "n1", PYTHON)
    job = DoctorJob(Patient(), tmp_path, patience=0.1)
    rows = rows_folder(tmp_path, "7_0")
    row = job._sum(Member(rank=0, world_size=2, num_nodes=2), rows)
    assert (row.status, row.text) == ("fails", "not tried: 1 of 2 nodes gave no rows")
    assert job._sum(Member(rank=1, world_size=2, num_nodes=2), rows) is None


def test_a_sum_that_hangs_or_breaks_on_a_rank_is_a_row(tmp_path, monkeypatch):
    job = DoctorJob(Patient(), tmp_path, patience=0.1)
    member = Member(rank=1, world_size=2, num_nodes=0)
    ends = Ended(1, "", "Traceback\nRuntimeError: NCCL error: no route to host", 3.0)
    monkeypatch.setattr(doctor_job, "run_bounded", lambda command, seconds: ends)
    assert job._sum(member, tmp_path).text == "RuntimeError: NCCL error: no route to host"
    ends = Ended(None, "", "", 180.0)
    assert job._sum(member, tmp_path) is None  # rank 0 tells
    assert job._sum(replace(member, rank=0), tmp_path).text == "not done in 180 s"


def test_a_dry_run_shows_the_script_and_writes_nothing(tmp_path, capsys):
    flags = ["--nodes=2", "--gpus_per_node=8", f"--out={tmp_path / 'doctor'}", "--dry_run"]
    status, shown, _ = submit(capsys, "doctor", *flags)
    assert status == 0
    assert "#SBATCH --gpus-per-node=8" in shown
    assert "-m slurm.doctor_table" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
@pytest.mark.timeout(300)
def test_two_nodes_of_two_ranks_leave_one_table_with_their_sum(cluster, tiny_shards, tmp_path):
    folder, report = tmp_path / "a doctor", tmp_path / "report.json"
    flags = ["--nodes=2", "--tasks_per_node=2", "--cpus_per_task=1", f"--out={folder}"]
    flags += [f"--json={report}", f"--shards={tiny_shards}", f"--run_dir={tmp_path / 'run'}"]
    told = " ".join(run("-m", "slurm.submit", "doctor", *flags).split())
    job = re.search(r"job (\d+) is queued", told)[1]
    wait_for_state(job, "COMPLETED")
    log = (folder / f"{job}_0_log.out").read_text()
    assert "2 nodes: n1, n2\n" in log
    assert log.rstrip().endswith("ready to train")
    rows = {row["what"]: row for row in json.loads(report.read_text())["rows"]}
    rate = re.fullmatch(r"([\d.]+) GB/s over 4 processes .*", rows["all-reduce (job)"]["text"])
    assert float(rate[1]) > 0
    assert {"Python", "torch", "step in fp32", "shards", "SLURM"} <= set(rows)
    assert not (tmp_path / "run").exists()


@pytest.mark.system
@pytest.mark.timeout(300)
def test_gpus_that_are_asked_for_and_not_seen_are_rows_here(tmp_path):
    flags = ["--cluster=local", "--gpus_per_node=2", f"--out={tmp_path / 'doctor'}"]
    ended = subprocess.run(
        [sys.executable, "-m", "slurm.submit", "doctor", *flags],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 1, ended.stderr
    words = " ".join(ended.stdout.split())
    assert "FAILS GPU GPUs were asked for (CUDA_VISIBLE_DEVICES=0,1)" in words
    assert "FAILS all-reduce (job)" in words
    assert words.endswith("What to do stands behind the arrows.")
    assert "Traceback" not in ended.stdout + ended.stderr
