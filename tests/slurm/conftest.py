"""What tests of jobs share."""

from pathlib import Path

import pytest


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "a run"  # with a space, as people have them
