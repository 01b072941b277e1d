import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPS = "import pytest\ndef test_runs(): pass\ndef test_skips(): pytest.skip('no program')"


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_suite_with_a_skipped_test_fails(tmp_path, processes):
    (tmp_path / "test_it.py").write_text(SKIPS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", processes, tmp_path]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "1 passed, 1 skipped" in ended.stdout
    assert "a skipped test is a failure" in ended.stdout


NEEDS_GPU = """
import pytest

def test_runs(): pass

@pytest.mark.gpu
def test_needs_a_gpu(): pass
"""


@pytest.mark.parametrize(
    ("flags", "status", "told"),
    [
        ([], 0, "1 passed, 1 deselected"),
        (["-m", "not system"], 0, "1 passed, 1 deselected"),
        (["-m", "gpu"], 1, "torch sees no GPU here"),
    ],
)
def test_a_test_that_needs_a_gpu_runs_where_asked_for_and_fails_without_one(
    tmp_path, flags, status, told
):
    (tmp_path / "test_it.py").write_text(NEEDS_GPU)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", "0", *flags]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    config = f"--config-file={ROOT / 'pyproject.toml'}"
    ended = subprocess.run(
        [*command, config, tmp_path], cwd=ROOT, env=hidden, capture_output=True, text=True
    )
    assert ended.returncode == status
    assert told in ended.stdout
