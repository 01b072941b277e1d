"""`scripts/benchmark.py checkpoint` measures what it says, on one process and on two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["--image_size=64", "--generator_width=4", "--discriminator_width=4", "--repeats=1"]


def benchmark(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/benchmark.py", "checkpoint", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.system
@pytest.mark.parametrize("num_processes", [1, 2])
def test_every_figure_is_there_and_nothing_is_left_in_the_scratch_folder(tmp_path, num_processes):
    where = [f"--run_dir={tmp_path / 'scratch'}", f"--json={tmp_path / 'figures.json'}"]
    done = benchmark(*FLAGS, *where, f"--num_processes={num_processes}")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.partition("written:")[0].splitlines())) <= 80
    figures = json.loads((tmp_path / "figures.json").read_text())
    seconds = {"sync_seconds", "async_stall_seconds", "copy_seconds", "async_durable_seconds"}
    seconds |= {"fresh_start_seconds", "resume_seconds", "first_stall_seconds"}
    assert all(figures[name] > 0 for name in seconds)
    assert figures["async_stall_seconds"] < figures["async_durable_seconds"]
    assert figures["total_bytes"] > 2_000_000
    assert figures["bytes_per_rank"] <= 1.1 * figures["total_bytes"] / num_processes
    assert figures["num_processes"] == num_processes
    ratio = figures["async_stall_seconds"] / figures["copy_seconds"]
    assert figures["stall_to_copy"] == pytest.approx(ratio)
    assert {"stall_to_sync", "bytes_per_rank_to_even_share", "resume_to_fresh_start"} <= set(
        figures
    )
    assert list((tmp_path / "scratch").iterdir()) == []


def test_wrong_flags_are_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    for flags, words in [
        (["--num_processes=0"], "num_processes must be at least 1, not 0"),
        ([f"--run_dir={tmp_path / 'file'}"], f"error: can't write to {tmp_path / 'file'}"),
    ]:
        refused = benchmark(*flags)
        assert refused.returncode == 2
        assert words in " ".join(refused.stderr.split())
