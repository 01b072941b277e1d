"""Every command answers `--help` and a mistake at once: without torch, in 80 columns."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pix2pix.cli.help import WIDTH, help_text
from pix2pix.cli.options import flags_of
from pix2pix.config import TrainConfig
from tests.test_docs import programs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory) -> dict[str, str]:
    """An environment in which importing torch is an error."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "torch.py").write_text("raise SystemExit('torch is imported, which takes seconds')\n")
    return os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}


def run(program: str, argument: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, *program.split(), argument]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("program", programs())
def test_help_needs_no_torch_and_fits_80_columns(without_torch, program):
    told = run(program, "--help", without_torch)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage: python ")
    assert max(map(len, told.stdout.splitlines())) <= WIDTH


@pytest.mark.parametrize("program", programs())
def test_a_mistake_needs_no_torch_and_is_one_message(without_torch, program):
    told = run(program, "--no_such_flag=1", without_torch)
    assert told.returncode == 2, told.stderr
    assert told.stderr.startswith("error: ")
    assert "Traceback" not in told.stderr


def test_the_flags_of_a_training_are_grouped_each_with_its_unit_and_default():
    text = help_text(TrainConfig, program="train")
    headings = [line for line in text.splitlines() if line and line[0] not in " u"]
    assert len(headings) >= 6  # run, data, networks, optimization, cadence, every command
    for flag in flags_of(TrainConfig).values():
        assert flag.required or f"(default {flag.default_text})" in " ".join(text.split())
        lines = [line for line in text.splitlines() if line.startswith(f"  --{flag.name} ")]
        assert len(lines) == 1
