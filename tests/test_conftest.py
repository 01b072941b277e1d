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
