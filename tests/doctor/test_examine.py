"""The doctor tells what is wrong in a row, whatever is broken: no traceback, no hang."""

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pix2pix.data.shards import Manifest, read_manifest, write_manifest
from pix2pix.doctor import examine as module
from pix2pix.doctor.examine import examine, row_text, verdict
from pix2pix.doctor.findings import Finding, Patient, fails, note, ok
from pix2pix.doctor.machine import check_run_dir, check_shards, check_slurm
from tests.data.shard_server import ShardServer

ROOT = Path(__file__).parents[2]


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_the_whole_table_of_this_machine(tmp_path, tiny_shards):
    report = tmp_path / "report.json"
    flags = [f"--shards={tiny_shards}", f"--run_dir={tmp_path / 'run'}", f"--json={report}"]
    ended = subprocess.run(
        [sys.executable, "scripts/doctor.py", *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "ready to train"
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())
    rows = json.loads(report.read_text())["rows"]
    statuses = {row["what"]: row["status"] for row in rows}
    for what in ("Python", "torch", "step in fp32", "loader processes", "shards", "run_dir space"):
        assert statuses[what] in ("ok", "note"), rows
    assert not (tmp_path / "run").exists()


def test_a_torch_that_cannot_be_imported_is_a_row(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    rows = {row.what: row for row in examine(Patient())}
    assert rows["torch"].status == rows["training step"].status == "fails"
    assert "libcudart.so.13: cannot open" in rows["torch"].text
    assert rows["Python"].status == "ok"


def test_a_check_that_hangs_is_a_row_and_the_others_go_on(monkeypatch):
    checks = [check for check in module.CHECKS if check[0] in ("Python", "SLURM")]
    hanging = [("driver", "tests.doctor.test_examine", "hang", 1), *checks]
    monkeypatch.setattr(module, "CHECKS", hanging)
    rows = [row for row in examine(Patient()) if row.what in ("driver", "Python")]
    assert [(row.what, row.status) for row in rows] == [("driver", "fails"), ("Python", "ok")]
    assert rows[0].text == "no answer in 1 s"


def hang(patient):
    import time

    time.sleep(60)


@pytest.mark.parametrize(
    ("sinfo", "said"),
    [
        (
            "echo 'sinfo: error: Unable to contact slurm controller' >&2; exit 1",
            "Unable to contact",
        ),
        ("echo 'gpu* 4 gpu:a100:8'", "gpu* 4 gpu:a100:8"),
    ],
)
def test_slurm_that_does_not_answer_is_a_note(tmp_path, monkeypatch, sinfo, said):
    program(tmp_path, "sinfo", sinfo)
    program(tmp_path, "sacct", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    rows = check_slurm(Patient())
    assert said in rows[0].text
    assert {row.status for row in rows} <= {"ok", "note"}


def test_without_slurm_a_note_says_that_none_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_slurm(Patient())[0].cure == "not needed for a training on this machine"


def test_shards_that_are_none_fail_with_what_to_do(tmp_path):
    (row,) = check_shards(Patient(shards=(str(tmp_path / "nope"),)))
    assert row.status == "fails"
    assert "make one with" in row.text


def test_shards_at_a_url_and_by_reference_are_read(tiny_shards, tmp_path):
    size = sum(path.stat().st_size for path in tiny_shards.glob("*.tar"))
    with ShardServer(tiny_shards) as server:
        split = read_manifest(tiny_shards).splits["val"]
        shards = tuple(replace(shard, url=f"{server.url}/{shard.name}") for shard in split.shards)
        write_manifest(tmp_path, Manifest({"val": replace(split, shards=shards)}))
        (_, whole, _, referred) = check_shards(Patient(shards=(server.url, str(tmp_path))))
        (gone,) = check_shards(Patient(shards=(f"{server.url}/nope",)))
    assert f" {size / 2**20:,.0f} MiB read" in whole.text
    assert referred.status == "ok"
    assert sum(server.tars.values()) == len(list(tiny_shards.glob("*.tar"))) + len(shards)
    assert (gone.status, "it is not there" in gone.text) == ("fails", True)


def test_a_run_dir_that_refuses_fsync_of_folders_is_a_note(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("pix2pix.doctor.machine.flush", refuse)
    rows = check_run_dir(Patient(run_dir=str(tmp_path / "run")))
    (durability,) = [row for row in rows if row.what == "run_dir durability"]
    assert durability.status == "note"
    assert "a power cut may lose the last checkpoint" in durability.text
    assert [*tmp_path.iterdir()] == []


def test_a_run_dir_that_refuses_renames_of_folders_fails(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Path, "rename", refuse)
    rows = check_run_dir(Patient(run_dir=str(tmp_path)))
    assert [row.status for row in rows if row.what == "run_dir renames"] == ["fails"]


def test_a_full_disk_is_a_row(tmp_path, monkeypatch):
    def refuse(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    (row,) = check_run_dir(Patient(run_dir=str(tmp_path)))
    assert (row.status, row.cure.split(",")[0]) == ("fails", "make room")
    assert "No space left on device" in row.text
    assert [*tmp_path.iterdir()] == []


def locks_of(tmp_path) -> Finding:
    rows = check_run_dir(Patient(run_dir=str(tmp_path)))
    return next(row for row in rows if row.what == "run_dir locks")


def test_file_locks_that_keep_nobody_out_or_are_not_there_are_a_note(tmp_path, monkeypatch):
    assert locks_of(tmp_path) == ok("run_dir locks", "file locks keep others out")
    monkeypatch.setattr("fcntl.flock", lambda descriptor, operation: None)
    assert locks_of(tmp_path).text == "file locks keep nobody out"

    def refuse(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    row = locks_of(tmp_path)
    assert (row.status, row.text) == ("note", "there are no file locks (No locks available)")


def test_a_check_that_ends_with_an_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(module, "CHECKS", [("disk", "tests.doctor.test_examine", "crash", 60)])
    (row,) = examine(Patient())
    assert (row.status, row.text) == ("fails", "PermissionError: [Errno 13] Permission denied")
    assert "pip" not in row.cure
    monkeypatch.setattr(module, "CHECKS", [("memory", "tests.doctor.test_examine", "die", 60)])
    (row,) = examine(Patient())
    assert "ended by signal 9" in row.cure


def crash(patient):
    raise PermissionError(13, "Permission denied")


def die(patient):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_verdict_names_what_fails():
    rows = [ok("a", "x"), note("b", "y"), fails("c", "z", "mend it")]
    assert verdict(rows) == "not ready: c. What to do stands behind the arrows."
    assert verdict(rows[:2]) == "ready to train"
    assert "→ mend it" in row_text(rows[2])
