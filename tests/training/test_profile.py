"""A profile shows where the time goes, on every rank, and changes nothing."""

import gzip
import json
from pathlib import Path

import torch

from pix2pix.training.profile import NUM_WARM_UP, StepProfile
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config

CPU = torch.device("cpu")


def trace_of(path: Path) -> list[dict]:
    return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def profiled(folder: Path, num_steps: int, run_steps: int, first: int = 0) -> list[str]:
    """What is said when steps of three sums are run, `num_steps` of them to be traced."""
    said: list[str] = []
    with StepProfile(num_steps, folder, 0, CPU, said.append) as profile:
        for step in range(first, first + run_steps):
            for _ in range(3):
                torch.cumsum(torch.ones(50_000), 0)
            profile.advance(step + 1)
    return said


def test_a_profiled_training_is_bit_equal_and_each_rank_leaves_trace_and_table(
    tiny_shards, tmp_path
):
    plain = tiny_config(tiny_shards, tmp_path / "plain", total_steps=6)
    traced = tiny_config(tiny_shards, tmp_path / "traced", total_steps=6, profile=2)
    expected, ranks = (run_ranks(fit, 2, config)[0] for config in (plain, traced))
    assert ranks["digests"] == expected["digests"]
    folder = tmp_path / "traced" / "profile"
    for rank in (0, 1):
        (trace,) = folder.glob(f"step_000000005.rank_{rank}.*.pt.trace.json.gz")
        names = {event["name"] for event in trace_of(trace)}
        assert {"aten::convolution_backward", "aten::_fused_adam_"} <= names
        table = (folder / f"step_000000005.rank_{rank}.txt").read_text()
        assert "aten::convolution_backward" in table
        assert "# of Calls" in table
    assert len(list(folder.iterdir())) == 4
    assert not (tmp_path / "plain" / "profile").exists()


def test_so_many_steps_are_traced_after_those_to_warm_up_wherever_a_run_begins(tmp_path):
    (said,) = profiled(tmp_path, num_steps=2, run_steps=9, first=100)
    name = f"step_{100 + NUM_WARM_UP + 2:09d}.rank_0"
    assert f"{name}.txt" in said
    (trace,) = tmp_path.glob("*.pt.trace.json.gz")
    assert trace.name.startswith(name)
    sums = [event for event in trace_of(trace) if event["name"] == "aten::cumsum"]
    assert len(sums) == 2 * 3
    lines = (tmp_path / f"{name}.txt").read_text().splitlines()
    (row,) = (line for line in lines if "aten::cumsum" in line)
    assert row.split()[-1] == "6"


def test_a_run_that_ends_before_its_profile_says_so(tmp_path):
    assert "after 1 of 5 steps" in profiled(tmp_path, 5, NUM_WARM_UP + 1)[0]
    assert "after 0 of 5 steps" in profiled(tmp_path, 5, 1)[0]
    assert list(tmp_path.iterdir()) == []


def test_without_the_flag_nothing_is_traced_or_said(tmp_path):
    assert profiled(tmp_path, num_steps=0, run_steps=6) == []
    assert list(tmp_path.iterdir()) == []
