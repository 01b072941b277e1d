"""A whole training beside its bare step: whose time is whose, and every figure is there."""

import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pix2pix.benchmark import end_to_end
from pix2pix.benchmark.bare_turns import BareStep, Plan, Turns
from pix2pix.benchmark.rounds import Timing
from tests.ranks import run_ranks

ROOT = Path(__file__).parents[2]
SMALL = ["--image_size=64", "--width=4", "--batch_size=4", "--num_workers=0"]
STEP, WAIT, APART, PAUSE = 1.0, 0.25, 10.0, 100.0


class Clock:
    """Seconds that pass only when something says that it took them."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def play(plan: Plan, clock: Clock) -> tuple[Turns, str]:
    """A training of `plan` whose parts take known times; what ran, in order."""
    seen = []

    def take(name: str, seconds: float) -> None:
        seen.append(name)
        clock.now += seconds

    trainer = SimpleNamespace(
        step=lambda micro_batches: take("s", STEP),
        distributed=SimpleNamespace(device=torch.device("cpu")),
        window=SimpleNamespace(seconds=defaultdict(float)),
        stream=SimpleNamespace(seconds_waited=0.0),
    )
    turns = Turns(trainer, SimpleNamespace(take_turn=lambda: take("B", APART)), plan)
    for _ in range(plan.total_steps):
        turns([])
        trainer.stream.seconds_waited += WAIT
        clock.now += WAIT
        for part in ("pictures", "evaluation", "checkpoints"):
            trainer.window.seconds[part] += PAUSE
            clock.now += PAUSE
    return turns, "".join(seen)


def test_the_bare_step_has_its_turns_between_steps_and_each_has_its_own_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    plan = Plan.of_turns(rounds=2, unmeasured=2, measured=3)
    turns, order = play(plan, clock)
    assert order == "s" + "Bsssss" * 2 + "s"
    assert turns.turns == [STEP + WAIT] * 2
    assert turns.seconds_waited / turns.seconds_measured == pytest.approx(WAIT / (STEP + WAIT))
    assert (turns.first_step_seconds, turns.seconds_apart) == (STEP, 2 * APART)
    figures = end_to_end.rates(8, turns, Timing((STEP, STEP)))
    assert figures["fit_samples_per_second"] == pytest.approx(8 / (STEP + WAIT))
    assert figures["step_samples_per_second"] == pytest.approx(8 / STEP)
    assert figures["efficiency"] == pytest.approx(STEP / (STEP + WAIT))


def test_a_machine_that_is_slow_for_a_round_does_not_change_the_efficiency():
    turns = SimpleNamespace(turns=[2.0, 10.0, 20.0], seconds_waited=0.0, seconds_measured=1.0)
    figures = end_to_end.rates(8, turns, Timing((1.8, 9.0, 1.0)))
    assert figures["efficiency"] == pytest.approx(0.9)


def test_the_parts_of_a_training_add_up_to_its_seconds(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    turns, _ = play(Plan.of_turns(rounds=1, unmeasured=1, measured=2), clock)
    parts = end_to_end.parts(clock.now - turns.seconds_apart + 7, 7, turns)
    total = parts.pop("total_seconds")
    assert parts["loop_seconds"] == pytest.approx(4 * (STEP + WAIT) + WAIT)
    del parts["logging_seconds"]
    assert sum(parts.values()) == pytest.approx(total)


def test_a_turn_of_the_bare_step_comes_after_one_that_does_not_count(monkeypatch):
    clock, steps = Clock(), []

    def step(micro_batches):
        steps.append("s")
        clock.now += 50.0 if len(steps) == 1 else STEP  # what the other left in the caches

    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    bare = BareStep(None, SimpleNamespace(device=torch.device("cpu")), seconds_per_turn=3 * STEP)
    bare._parts = step, None
    bare.seconds = STEP
    bare.take_turn()
    assert (len(steps), bare.turns) == (4, [STEP])


def test_turns_are_spread_over_a_training_of_given_length():
    plan = Plan.of_steps(total_steps=1000, rounds=4, unmeasured=9)
    assert plan.measured == 240
    used = 2 + plan.rounds * (plan.unmeasured + plan.measured)
    assert plan.total_steps - plan.rounds < used <= plan.total_steps


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
    parts = ("start", "first_step", "loop", "pictures", "evaluation", "checkpoints")
    seconds = [figures[f"{part}_seconds"] for part in parts]
    assert min(seconds) > 0
    assert sum(seconds) == pytest.approx(figures["total_seconds"])
    assert 0 < figures["logging_seconds"] < figures["loop_seconds"]


def test_too_few_samples_for_the_turns_are_named(tiny_shards: Path):
    with pytest.raises(AssertionError, match="--num_samples 8 is too few for the turns; give 24"):
        run_ranks(_measure, 1, tiny_shards, 8)


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
