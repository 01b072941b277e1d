"""A whole training beside its bare step: whose time is whose, and every figure is there."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pix2pix.benchmark import end_to_end
from tests.ranks import run_ranks

ROOT = Path(__file__).parents[2]
SMALL = ["--image_size=64", "--width=4", "--batch_size=4", "--num_workers=0"]


def record(step: int, rate: float, waited: float) -> dict[str, float]:
    return {
        "step": step,
        "speed/samples_per_second": rate,
        "speed/share_waited_for_data": waited,
    }


def test_the_rate_of_a_training_is_that_of_its_records_together():
    records = [record(2, 10.0, 0.0), record(4, 30.0, 0.5), {"step": 4, "evaluation/psnr": 20.0}]
    # A step each of 3 and of 1 seconds: the latter waited half of its time.
    found = end_to_end.rate_of(records)
    assert found == pytest.approx((15.0, 0.5 / 4))


def test_a_machine_that_is_slow_for_a_round_does_not_change_the_efficiency():
    fits = [end_to_end.Rate(8 / seconds, 0.1) for seconds in (2.0, 10.0, 20.0)]
    figures = end_to_end.rates(8, fits, [1.8, 9.0, 1.0])
    assert figures["efficiency"] == pytest.approx(0.9)
    assert figures["fit_samples_per_second"] == pytest.approx(0.8)
    assert figures["step_samples_per_second"] == pytest.approx(8 / 1.8)
    assert figures["share_waited_for_data"] == pytest.approx(0.1)


def test_the_parts_of_a_training_add_up_to_its_seconds():
    spent = {"pictures": 1.0, "evaluation": 2.0, "checkpoints": 3.0, "logging": 0.5}
    parts = dict(end_to_end.parts(7.0, 30.0, spent))
    assert (parts.pop("total_seconds"), parts.pop("logging_seconds")) == (37.0, 0.5)
    assert parts["loop_seconds"] == 24.0
    assert sum(parts.values()) == 37.0


@pytest.mark.parametrize(
    ("steps", "ahead", "most"), [(3, 1, 50), (15, 9, 50), (6250, 9, 50), (100, 9, 1), (10, 9, 50)]
)
def test_what_was_prepared_before_is_not_measured_and_records_hold_whole_spans(steps, ahead, most):
    length = end_to_end.length_of(steps, ahead, most)
    assert length.unmeasured >= ahead
    assert length.measured >= 1
    assert 1 <= length.log_every <= most
    assert length.unmeasured % length.log_every == length.measured % length.log_every == 0
    assert steps <= length.total_steps < steps + 2 * length.log_every


def _measure(shards: Path, num_samples: int | None) -> dict:
    from pix2pix.benchmark.options import EndToEndOptions
    from pix2pix.run.distributed import Distributed

    options = EndToEndOptions(
        shards=shards,
        num_samples=num_samples,
        batch_size=4,
        image_size=64,
        width=4,
        num_workers=0,
        rounds=2,
        seconds_per_turn=0.05,
    )
    return dict(end_to_end.measure(options, Distributed(num_threads=1), seconds_before=1.0))


def test_a_real_training_gives_every_figure(tiny_shards: Path):
    (figures,) = run_ranks(_measure, 1, tiny_shards, 60)
    rates = ("fit_samples_per_second", "step_samples_per_second", "efficiency")
    assert min(figures[rate] for rate in rates) > 0
    ratio = figures["fit_samples_per_second"] / figures["step_samples_per_second"]
    assert 0.5 * ratio < figures["efficiency"] < 2 * ratio  # a median of ratios, not their ratio
    assert 0 <= figures["share_waited_for_data"] < 1
    assert figures["num_samples"] == 60
    assert figures["psnr_decibels"] > 5
    parts = ("start", "loop", "pictures", "evaluation", "checkpoints")
    seconds = [figures[f"{part}_seconds"] for part in parts]
    assert min(seconds) > 0
    assert sum(seconds) == pytest.approx(figures["total_seconds"])
    assert 0 < figures["logging_seconds"] < figures["loop_seconds"]


def test_too_few_samples_to_measure_are_named(tiny_shards: Path):
    with pytest.raises(AssertionError, match="--num_samples 4 is too few to measure; give 8"):
        run_ranks(_measure, 1, tiny_shards, 4)


@pytest.mark.system
def test_one_that_is_stopped_has_no_figures(tmp_path: Path):
    short = ["--num_samples=1000000", "--seconds_per_turn=0.1", f"--json={tmp_path / 'f.json'}"]
    command = [sys.executable, "scripts/benchmark.py", "end_to_end", *SMALL, *short]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"step/s" not in run.stderr.read1():  # the training's bar
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    told, _ = run.communicate(timeout=60)
    assert (run.returncode, told) == (130, b"")
    assert not (tmp_path / "f.json").exists()


@pytest.mark.system
def test_the_command_reports_and_draws(tmp_path: Path):
    where = [f"--json={tmp_path / 'figures.json'}", f"--plot={tmp_path / 'figures.png'}"]
    short = ["--rounds=1", "--seconds_per_turn=0.1"]
    command = [sys.executable, "scripts/benchmark.py", "end_to_end", *SMALL, *short, *where]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [line for line in run.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["photos"] == "synthetic"
    assert figures["torch_version"]
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")
