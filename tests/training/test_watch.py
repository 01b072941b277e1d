"""Means are logged at their own step, and no log waits for the device.

A CPU has its values at once. The event of a device is the substitution: it is as late as can be.
"""

import json
from pathlib import Path

import torch

from pix2pix.training import watch
from pix2pix.training.watch import Arriving
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config, trainer_of


class LateEvent:
    """Of values that have never arrived by themselves, so that someone must wait for them."""

    waits = 0

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        LateEvent.waits += 1


def fit_on_a_late_device(config, stop_after=None):
    """What `fit` returns, and how many lines were logged, and waits made, before each step."""
    watch._event_after = lambda values: LateEvent()
    trainer = trainer_of(config)
    step, before = trainer.step, []
    metrics = trainer.run.metrics_file

    def watched(micro_batches):
        before.append((len(records(metrics)), LateEvent.waits))
        if len(before) == stop_after:
            trainer.stop_request.received = "a test"
        return step(micro_batches)

    trainer.step = watched
    trainer.fit()
    trainer.distributed.shutdown()
    return before


def records(metrics: Path) -> list[dict]:
    if not metrics.exists():
        return []
    lines = map(json.loads, metrics.read_text().splitlines())
    return [line for line in lines if "loss/generator_l1" in line]


def figures(run_dir: Path) -> list[tuple]:
    tags = ("step", *watch.TAGS.values(), "optimizer/learning_rate")
    return [tuple(line[tag] for tag in tags) for line in records(run_dir / "metrics.jsonl")]


def test_late_means_are_those_of_their_steps_and_all_are_there_in_the_end(tiny_shards, tmp_path):
    run_ranks(fit, 1, tiny_config(tiny_shards, tmp_path / "now", log_every=2, total_steps=7))
    late = tiny_config(tiny_shards, tmp_path / "late", log_every=2, total_steps=7)
    (before,) = run_ranks(fit_on_a_late_device, 1, late)
    assert before == [(0, 0)] * 7  # nobody has waited, so nothing was read
    assert figures(tmp_path / "late") == figures(tmp_path / "now")
    assert [step for step, *_ in figures(tmp_path / "late")] == [2, 4, 6, 7]
    times = [line["time"] for line in records(tmp_path / "late" / "metrics.jsonl")]
    assert times == sorted(set(times))  # when they were measured, not when they were read


def test_a_save_and_a_stop_have_all_means_up_to_them(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", total_steps=9, checkpoint_every=3)
    (before,) = run_ranks(fit_on_a_late_device, 1, config, 4)
    assert [count for count, _ in before] == [0, 0, 0, 3, 3]
    assert [step for step, *_ in figures(tmp_path / "run")] == [1, 2, 3, 4, 5]
    run_ranks(fit_on_a_late_device, 1, config)
    assert [step for step, *_ in figures(tmp_path / "run")] == list(range(1, 10))


def test_values_of_a_cpu_are_here_at_once():
    values = Arriving(torch.tensor([1.0, 2.0]))
    assert values.are_here
    assert values.read() == [1.0, 2.0]
