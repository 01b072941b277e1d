"""Promises to those whose settings will disappoint them: one line with what to change."""

import time

import pytest

from pix2pix.training import advice
from pix2pix.training.advice import (
    SlowSteps,
    nothing_to_compress,
    small_batch,
    small_for_a_gpu,
)
from tests.small_training import tiny_config


def config(**changes):
    return tiny_config("shards", "run", **changes)


@pytest.mark.parametrize(
    ("changes", "batch", "words"),
    [
        ({}, 3, "of 3 photographs per process: --norm instance"),
        ({}, 1, "of 1 photograph per process"),
        ({}, 3, "a larger --global_batch"),
        ({"grad_accumulation_steps": 2}, 3, "fewer --grad_accumulation_steps"),
    ],
)
def test_batch_norm_over_a_few_photographs_is_told(changes, batch, words):
    assert words in small_batch(config(**changes), batch)


@pytest.mark.parametrize(
    ("changes", "batch"), [({}, 4), ({"norm": "instance"}, 1), ({"norm": "sync_batch"}, 2)]
)
def test_enough_photographs_or_another_norm_are_no_matter(changes, batch):
    assert small_batch(config(**changes), batch) is None


def test_fewer_than_8_photographs_at_a_time_are_told_on_a_gpu():
    assert small_for_a_gpu(7, on_cpu=False).startswith("7 photographs at a time")
    assert small_for_a_gpu(8, on_cpu=False) is None
    assert small_for_a_gpu(1, on_cpu=True) is None


def test_a_compression_that_does_nothing_is_told():
    assert "does nothing here" in nothing_to_compress(config(gradient_compression="bf16"), 1)
    assert nothing_to_compress(config(gradient_compression="bf16"), 2) is None
    assert nothing_to_compress(config(), 1) is None


def lines(monkeypatch, seconds, steps=100, on_cpu=True, **changes):
    """What is said after each of ten steps that take so long, by a clock of this test."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    watch, said = SlowSteps(config(**changes), on_cpu, steps), []
    for _ in range(10):
        clock[0] += seconds
        said.append(watch.step_done())
    return said


def test_slow_steps_are_told_once_with_the_length_of_the_run_and_the_small_flags(monkeypatch):
    said = lines(monkeypatch, 15, steps=25_000, image_size=256, generator_width=64)
    assert [line is not None for line in said].index(True) == advice.LAST_STEP - 1
    (line,) = filter(None, said)
    assert "a step takes 15 s on this CPU, the 25000 steps of this run about 4 days" in line
    assert "--image_size 128 --generator_width 32 --global_batch 4" in line


def test_a_long_run_of_quick_steps_is_told_too(monkeypatch):
    (line,) = filter(None, lines(monkeypatch, 1.0, steps=100_000))
    assert "about 28 hours" in line


def test_quick_steps_and_a_gpu_are_told_nothing(monkeypatch):
    assert not any(lines(monkeypatch, 0.5, steps=1000))
    assert not any(lines(monkeypatch, 15, steps=1000, on_cpu=False))
