"""Promises of a resume: bit-equal at every step, and on any number of ranks the same training."""

import dataclasses
import json
import shutil
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from pix2pix.run.distributed import Distributed
from pix2pix.training.trainer import Trainer
from tests.ranks import run_ranks
from tests.small_training import fit, tensor_digests, tiny_config, trainer_of


def digests_of(trainer: Trainer) -> dict[str, str]:
    return tensor_digests({"state": trainer.state.state_dict()})


def branch_of(run: Path, step: int) -> Path:
    """What is left of `run` when it is killed after it has saved `step`."""
    branch = run.with_name(f"{run.name}_killed_at_{step}")
    name = f"checkpoints/step_{step:09d}"
    shutil.copytree(run / name, branch / name)
    shutil.copy(run / "config.json", branch)
    return branch


def resume_at_every_step(config) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """The digests of the uninterrupted run, and of a resume at each of its steps."""
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    whole = Trainer(config, distributed)
    whole.fit()
    resumed = {}
    for step in range(1, config.total_steps):
        branch = distributed.run_on_main(partial(branch_of, config.run_dir, step))
        rest = dataclasses.replace(config, run_dir=branch, checkpoint_every=0)
        trainer = Trainer(rest, distributed)
        assert trainer.state.step == step
        trainer.fit()
        resumed[step] = digests_of(trainer)
    distributed.shutdown()
    return digests_of(whole), resumed


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.system)])
def test_weights_moments_and_averages_are_bit_equal_after_a_kill_at_any_step(
    tiny_shards, tmp_path, world_size, num_workers
):
    config = tiny_config(
        tiny_shards,
        tmp_path / "run",
        total_steps=8,
        global_batch=8,
        num_workers=num_workers,
        checkpoint_every=1,
        keep_checkpoints=8,
    )
    for expected, resumed in run_ranks(resume_at_every_step, world_size, config, seconds=110):
        assert len(expected) > 100
        assert list(resumed) == [1, 2, 3, 4, 5, 6, 7]
        for step, found in resumed.items():
            assert found == expected, f"resumed at step {step}"


def restored_digests(config) -> dict[str, str]:
    return digests_of(trainer_of(config))


def records_of(run: Path) -> dict[int, dict[str, float]]:
    """What was logged of each step."""
    records: dict[int, dict[str, float]] = {}
    for record in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        records.setdefault(record["step"], {}).update(record)
    return records


def global_batches(ranks: list[dict]) -> list[list[str]]:
    steps = zip(*(rank["keys"] for rank in ranks), strict=True)
    return [list(chain.from_iterable(step)) for step in steps]


@pytest.mark.parametrize(
    ("before", "after"), [(2, 3), (4, 1), pytest.param(8, 6, marks=pytest.mark.system)]
)
def test_on_another_number_of_ranks_the_same_training_goes_on(tiny_shards, tmp_path, before, after):
    run = tmp_path / "run"
    config = tiny_config(
        tiny_shards,
        run,
        global_batch=24 if before == 8 else 12,
        norm="instance",
        dropout=False,
        checkpoint_every=2,
    )
    straight = run_ranks(fit, before, config)
    moved = dataclasses.replace(config, run_dir=branch_of(run, 2))
    loaded = run_ranks(restored_digests, after, moved)
    assert all(digests == loaded[0] for digests in loaded)
    assert loaded[0] == run_ranks(restored_digests, 1, moved)[0]

    resumed = run_ranks(fit, after, moved)
    assert resumed[0]["first_step"] == 2
    assert global_batches(resumed) == global_batches(straight)[2:]
    expected, found = records_of(run), records_of(moved.run_dir)
    for step in (3, 4):
        losses = {name: v for name, v in expected[step].items() if name.startswith("loss/")}
        assert len(losses) == 3
        for name, value in losses.items():
            assert found[step][name] == pytest.approx(value, rel=1e-4), (step, name)
