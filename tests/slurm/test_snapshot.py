"""Promises of a snapshot: it is all of the code and nothing else, once, and it is what runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from pix2pix.errors import UserError
from slurm.snapshot import PACKAGES, check_snapshot, snapshot_path, take_snapshot

ROOT = Path(__file__).parents[2]


def test_a_snapshot_holds_every_source_file_and_nothing_else(tmp_path):
    snapshot = take_snapshot(tmp_path)
    copied = {path.relative_to(snapshot) for path in snapshot.rglob("*") if path.is_file()}
    sources = {
        path.relative_to(ROOT)
        for name in PACKAGES
        for kind in ("*.py", "*.md")  # the template of the model card
        for path in (ROOT / name).rglob(kind)
    }
    assert copied == sources
    assert all((snapshot / name).read_bytes() == (ROOT / name).read_bytes() for name in sources)


def test_the_same_code_is_copied_once(tmp_path):
    assert take_snapshot(tmp_path) == take_snapshot(tmp_path) == snapshot_path(tmp_path)
    assert list(tmp_path.iterdir()) == [snapshot_path(tmp_path)]


def test_the_snapshot_is_what_runs_wherever_a_job_starts(tmp_path):
    snapshot = take_snapshot(tmp_path)
    (snapshot / "pix2pix" / "__init__.py").write_text("__version__ = 'of the snapshot'\n")
    told = subprocess.run(
        [sys.executable, "-m", "slurm.snapshot"],  # imports pix2pix, prints nothing
        cwd=ROOT,
        env={"PYTHONPATH": str(snapshot), "PYTHONSAFEPATH": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    code = "import pix2pix; print(pix2pix.__version__)"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(snapshot), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == "of the snapshot"


def test_other_code_than_was_submitted_is_refused(tmp_path):
    with pytest.raises(UserError, match="this job runs the code in"):
        check_snapshot(take_snapshot(tmp_path))
    check_snapshot(ROOT)
    check_snapshot(None)
