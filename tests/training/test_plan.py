"""What a training costs is said before it runs, and nothing is written for it."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pix2pix.cli.command_line import main
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.state import build_state
from pix2pix.training.plan import DryRunOptions, cost_of, cost_table
from scripts.train import train
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config
from tests.training.test_launcher import ROOT
from tests.training.test_launcher import train as command


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def said(table: str) -> dict[str, str]:
    """The rows of a table of two columns, by the left one."""
    rows: dict[str, str] = {}
    for line in table.splitlines():
        left, right = line[:32].strip(), line[32:].strip()
        if left:
            rows[left] = right
        else:
            rows[list(rows)[-1]] += f" {right}"
    return rows


def dry_run(capsys, shards, run_dir, *flags: str, **changes) -> dict[str, str]:
    arguments = [*command(run_dir, shards, **changes)[1:], "--dry_run", *flags]
    with pytest.raises(SystemExit) as ended:
        main(train, (TrainConfig, DryRunOptions), argv=arguments)
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    assert max(map(len, told.out.splitlines())) <= 80
    return said(told.out)


def test_a_dry_run_says_the_costs_and_writes_nothing(capsys, monkeypatch, tiny_shards, run_dir):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shown = dry_run(capsys, tiny_shards, run_dir, "--epochs=5", total_steps="none")
    assert shown["steps"] == "20"
    assert shown["epochs"] == "5 of 24 photographs"
    assert shown["ranks"] == "2, each sees 60 photographs"
    assert shown["batch"] == "6 photographs, 3 at a time on a rank"
    assert shown["time"].startswith("not measured: --estimate")
    assert not run_dir.exists()


def test_an_estimate_says_the_time_to_the_end(capsys, tiny_shards, run_dir):
    shown = dry_run(capsys, tiny_shards, run_dir, "--estimate")
    assert " for 4 steps of " in shown["time"]
    assert " on the CPU of this machine in fp32" in shown["time"]
    assert not run_dir.exists()


def test_an_estimate_alone_is_refused():
    with pytest.raises(UserError, match="--estimate measures for --dry_run"):
        DryRunOptions(estimate=True)


def test_a_dry_run_refuses_what_the_training_would(capsys, trained_run, tiny_shards):
    arguments = [*command(trained_run, tiny_shards, seed=7)[1:], "--dry_run"]
    with pytest.raises(SystemExit) as ended:
        main(train, (TrainConfig, DryRunOptions), argv=arguments)
    assert ended.value.code == 2
    assert "belongs to another training" in " ".join(capsys.readouterr().err.split())


def test_the_answer_needs_no_torch(tiny_shards, run_dir):
    code = "import sys; sys.modules['torch'] = None; from scripts.train import command; command()"
    flags = [*command(run_dir, tiny_shards)[1:], "--dry_run"]
    told = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert "disk for checkpoints" in told.stdout


def test_flags_of_a_dry_run_are_no_part_of_a_training():
    mine = {field.name for field in dataclasses.fields(DryRunOptions)}
    assert mine == {"dry_run", "estimate"}
    assert not mine & {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("ema_decay", [0, 0.999])
def test_the_size_of_a_checkpoint_is_that_of_a_real_one(tiny_shards, run_dir, ema_decay):
    wide = {"generator_width": 32, "discriminator_width": 32, "total_steps": 1}
    config = tiny_config(tiny_shards, run_dir, ema_decay=ema_decay, **wide)
    cost = cost_of(config)
    assert cost is not None
    assert cost.checkpoint == build_state(config, torch.device("cpu")).num_bytes
    run_ranks(fit, 1, config)
    (saved,) = (run_dir / "checkpoints").iterdir()
    real = sum(file.stat().st_size for file in saved.iterdir())
    assert cost.checkpoint == pytest.approx(real, rel=0.01)


def test_disk_is_for_all_that_are_kept_and_the_one_being_written(tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir, generator_width=64, discriminator_width=64)
    for total, every, keep, expected in (
        (10, 0, 3, "501 MB for 1;"),
        (10, 5, 3, "1 GB for 2;"),
        (100, 10, 3, "1.5 GB for 3, 2 GB while the next is written;"),
    ):
        config = dataclasses.replace(
            config, total_steps=total, checkpoint_every=every, keep_checkpoints=keep
        )
        shown = said(cost_table(config, 24, 1, 1))
        assert shown["disk for checkpoints"].startswith(expected)


def test_an_encoder_is_left_to_the_estimate(tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir, encoder="efficientnet_lite0")
    assert cost_of(config) is None
    assert "--estimate" in said(cost_table(config, 24, 1, 1))["checkpoint, memory"]
