"""`make gpu` never ends well where nothing was checked, and keeps what a section measured."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from pix2pix.cli.options import flags_of
from pix2pix.gpu import steps
from pix2pix.gpu.options import GpuOptions, Part
from pix2pix.gpu.prove import FAILED, NO_GPU, prove
from pix2pix.gpu.sections import LOOK, NINE_MINUTES, SECTIONS, Section, Target, Trial

ROOT = Path(__file__).parents[2]
FAKES = "tests.gpu.fake_sections"
ON_CPU = Trial(
    device="cpu",
    image_size=64,
    width=4,
    precision="no",
    batches=(1, 2),
    compiled_batches=(2,),
    classic_batches=(1, 2),
    decoded_batches=(2,),
    trained_batch=4,
    backend="aot_eager",
    num_samples=48,
    num_batches=4,
    rounds=1,
    seconds_per_turn=0.1,
)


def section(name: str, seconds: float = 60, **more) -> Section:
    return Section(name, "Rates", FAKES, name, seconds, **more)


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch):
    """Without torch, which takes seconds to import; the whole report is tested below."""
    monkeypatch.setattr("pix2pix.gpu.prove.LOOK", Section("look", "", FAKES, "a_device", 60))


def test_without_a_gpu_one_sentence_and_status_3(tmp_path):
    command = [sys.executable, "scripts/gpu.py", f"--out={tmp_path / 'gpu'}"]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (NO_GPU, "")
    assert "no GPU is seen here" in ended.stdout
    assert "nothing was checked" in " ".join(ended.stdout.split())
    assert not (tmp_path / "gpu").exists()


def test_a_torch_that_does_not_answer_is_no_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pix2pix.gpu.prove.LOOK", section("measures_nothing"))
    assert prove(ON_CPU, tmp_path, sections=[section("good")]) == NO_GPU
    assert "nothing was checked" in " ".join(capsys.readouterr().out.split())
    assert list(tmp_path.iterdir()) == []


def test_a_section_that_fails_or_hangs_keeps_its_rows_and_the_others_go_on(tmp_path, capsys):
    parts = [section("stops_halfway"), section("hangs_halfway", 20), section("good")]
    assert prove(ON_CPU, tmp_path, sections=parts) == FAILED
    report = (tmp_path / "report.md").read_text()
    assert report.count("| 1 | 3,000 |") == 3
    assert "**Failed**: RuntimeError: CUDA error: an \\| illegal address" in report
    assert "**Failed**: not done in 20 s" in report
    assert "| 2 | 4,000 |" in report
    assert report.count("a device; torch 1") == 3
    assert "Traceback" in (tmp_path / "stops_halfway.log").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])  # the last one is a path
    assert [line.split()[0] for line in lines[1:4]] == ["FAILS", "FAILS", "ok"]


def test_a_section_that_measures_nothing_fails(tmp_path):
    assert prove(ON_CPU, tmp_path, sections=[section("measures_nothing")]) == FAILED
    assert "it measured nothing" in (tmp_path / "report.md").read_text()


def test_one_part_again_replaces_its_own_section_only(tmp_path):
    parts = [section("good"), section("measures_nothing")]
    prove(ON_CPU, tmp_path, sections=parts)
    assert prove(ON_CPU, tmp_path, "good", sections=parts) == 0
    report = (tmp_path / "report.md").read_text()
    assert report.count("## good") == report.count("## measures_nothing") == 1


def test_targets_stand_beside_the_figures_and_a_miss_is_said(tmp_path):
    targets = (Target("photographs/s", 3500), Target("batch", 0.5, at_least=False))
    assert prove(ON_CPU, tmp_path, sections=[section("good", targets=targets)]) == 0
    told = "Targets: ≥ 3,500 photographs/s: 4,000, reached; ≤ 0.5 batch: 1, missed."
    assert told in (tmp_path / "report.md").read_text()


def test_all_sections_but_the_slow_one_take_nine_minutes_at_most():
    quick = [section for section in SECTIONS if not section.slow]
    assert [section.name for section in SECTIONS if section.slow] == ["autotune"]
    assert sum(section.seconds for section in [LOOK, *quick]) <= NINE_MINUTES
    assert get_args(Part) == tuple(section.name for section in SECTIONS)
    assert "part" in flags_of(GpuOptions)


def test_the_section_of_tests_has_every_test_that_is_marked_gpu():
    marks = re.compile(r"mark\.gpu|\bDEVICES\b")
    files = {path for path in (ROOT / "tests").rglob("test_*.py") if marks.search(path.read_text())}
    listed = {path for name in Trial().tests for path in [ROOT / name, *(ROOT / name).rglob("*")]}
    assert files - {ROOT / "tests" / "test_conftest.py"} <= listed


def test_a_mode_that_does_not_compile_is_a_row_and_the_others_are_measured():
    rows = []
    with pytest.raises(RuntimeError, match=r"default at batch 2: .*nonsense.*; reduce-overhead at"):
        rows.extend(steps.compiled(replace(ON_CPU, backend="nonsense")))
    assert [row["mode"] for row in rows] == ["default", "reduce-overhead"]
    assert all("failed: " in row["photographs/s"] for row in rows)


A_SUITE = """
import pytest

@pytest.mark.gpu
def test_good():
    pass

@pytest.mark.gpu
def test_bad():
    assert 1 + 1 == 3, "arithmetic"
"""


@pytest.mark.system
@pytest.mark.timeout(900)
def test_every_section_runs_on_a_cpu_in_small(tmp_path, monkeypatch):
    """In place of a GPU: whatever is CUDA's alone stays untried."""
    monkeypatch.setattr("pix2pix.gpu.prove.LOOK", LOOK)
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_it.py").write_text(A_SUITE)
    (suite / "pytest.ini").write_text("[pytest]\nmarkers = gpu: a GPU\n")
    trial = replace(ON_CPU, tests=(str(suite),))
    patient = [part._replace(seconds=300) for part in SECTIONS if not part.slow]
    assert prove(trial, tmp_path / "out", sections=patient) == FAILED
    report = (tmp_path / "out" / "report.md").read_text()
    texts = dict(part.split("\n", 1) for part in report.split("\n## ")[1:])
    assert list(texts) == [part.name for part in patient]
    failed = [name for name, text in texts.items() if "**Failed**" in text]
    assert failed == ["tests"]  # one of its tests is bad
    for words in ("no GPU", "torch 2", "| 1 | 1 |", "arithmetic", "1 of 2 tests failed"):
        assert words in texts["tests"]
    assert texts["step"].count("\n| 1 | no |") == texts["step"].count("\n| 2 | no |") == 1
    assert "≥ 38 % of matmul: " in texts["step"]
    assert "decoder on cpu, 2 pairs at once" in texts["loader"]
    assert "| photos | synthetic |" in texts["classic"]
    assert "≤ 60 total_seconds: " in texts["classic"]
