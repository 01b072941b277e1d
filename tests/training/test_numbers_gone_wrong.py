"""Numbers that are not finite, on one rank: all skip alike, it is told, and it ends in time."""

import dataclasses
import json
import math

import pytest
import torch

from pix2pix.errors import UserError
from pix2pix.model import losses
from pix2pix.training.log import RunLog
from pix2pix.training.watch import FiniteWatch
from tests.ranks import run_ranks
from tests.small_training import fit, tensor_digests, tiny_config, trainer_of
from tests.training.test_step import batch_of, build, lower_scales

# What is spoilt on one rank, and the networks that must then stay as they were.
SPOILT = {
    "discriminator_fake": ["discriminator"],
    "generator_adversarial": ["generator"],
    "l1": ["generator"],
}


def fit_with_spoilt_loss(config, name, value, steps, spoilt_rank):
    """Train; in these steps a loss of one rank is `value`. Digests before and after each step."""
    trainer = trainer_of(config)
    true_loss, step, history, lines = getattr(losses, name), trainer.step, [], []
    RunLog.line = lambda log, text: lines.append(text)

    def spoilt(*args):
        wrong = trainer.state.step + 1 in steps and trainer.distributed.rank == spoilt_rank
        # value + 0 × loss: infinite, with gradients that are finite or NaN as they come
        return true_loss(*args) * 0 + value if wrong else true_loss(*args)

    def watched(micro_batches):
        before = tensor_digests(trainer.state.state_dict())
        metrics = step(micro_batches)
        after = tensor_digests(trainer.state.state_dict())
        history.append({name for name in after if before.get(name) != after[name]})
        return metrics

    setattr(losses, name, spoilt)
    trainer.step = watched
    try:
        outcome = trainer.fit().value
    except UserError as error:
        outcome = str(error)
    digests = tensor_digests(trainer.state.state_dict())
    finite = all(
        value.isfinite().all()
        for network in trainer.state.networks().values()
        for value in network.state_dict().values()
    )
    trainer.distributed.shutdown()
    return {
        "outcome": outcome,
        "changed": history,
        "digests": digests,
        "finite": finite,
        "lines": lines,
    }


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("discriminator_fake", math.nan, 3),
        ("discriminator_fake", math.inf, 1),
        ("generator_adversarial", math.nan, 1),
        ("l1", math.inf, 3),
    ],
)
def test_a_loss_of_one_rank_that_is_not_finite_skips_the_update_on_all(
    tiny_shards, tmp_path, name, value, parts
):
    config = tiny_config(tiny_shards, tmp_path / "run", grad_accumulation_steps=parts)
    ranks = run_ranks(fit_with_spoilt_loss, 2, config, name, value, {2}, 1)
    for rank in ranks:
        assert rank["outcome"] == "finished"
        assert rank["finite"]
        for network in ("generator", "discriminator"):
            moved = [
                {part.split(".")[0] for part in changed if part.startswith(network)}
                for changed in rank["changed"]
            ]
            own = {network, f"{network}_optimizer"}
            for number, changed in enumerate(moved, start=1):
                skipped = number == 2 and network in SPOILT[name]
                assert changed & own == (set() if skipped else own), (network, number)
    # Running statistics are each rank's own; all else must be the same on both.
    shared = {n: d for n, d in ranks[0]["digests"].items() if "running" not in n}
    assert shared == {n: d for n, d in ranks[1]["digests"].items() if "running" not in n}


def test_a_skipped_step_is_logged_with_its_samples_and_printed(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", log_every=0)
    ranks = run_ranks(fit_with_spoilt_loss, 2, config, "l1", math.nan, {2, 3}, 1)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    told = [record for record in map(json.loads, lines) if "skipped" in record]
    assert [(record["step"], record["skipped"]) for record in told] == [
        (2, ["generator"]),
        (3, ["generator"]),
    ]
    keys = run_ranks(keys_of_steps, 1, tiny_config(tiny_shards, tmp_path / "other"))[0]
    assert [record["samples"] for record in told] == keys[1:3]
    printed = [" ".join(line.split()) for line in ranks[0]["lines"] if "is skipped" in line]
    assert len(printed) == 2
    assert f"samples: {', '.join(keys[1][:4])} and 2 more" in printed[0]


def keys_of_steps(config):

    return fit(config)["keys"]


def test_too_many_in_a_row_end_the_training_and_the_last_good_checkpoint_stays(
    tiny_shards, tmp_path
):
    config = tiny_config(
        tiny_shards,
        tmp_path / "run",
        total_steps=40,
        checkpoint_every=1,
        keep_checkpoints=1,
        max_skipped_steps=3,
    )
    bad = {2, *range(4, 40)}
    for rank in run_ranks(fit_with_spoilt_loss, 2, config, "l1", math.nan, bad, 1):
        assert "3 steps in a row, up to step 6, were not finite" in rank["outcome"]
        assert len(rank["changed"]) <= 8  # at once, or a step later
        assert rank["finite"]
    saved = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert saved == ["step_000000003"]


def test_a_training_that_is_stopped_or_ends_among_skipped_steps_saves(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", checkpoint_every=2)
    run_ranks(fit_with_spoilt_loss, 1, config, "l1", math.nan, {4}, 0)
    assert (tmp_path / "run" / "checkpoints" / "step_000000004").is_dir()


def test_fp16_looking_for_its_scale_is_no_failure_but_at_scale_1_it_is():
    _, state, step = build("fp16")
    lower_scales(state, scale=2.0**40)
    metrics = step([batch_of()])
    assert metrics.skipped_updates >= 1
    assert metrics.failed_updates == 0
    state.discriminator_scaler._scale.fill_(2.0**6)
    state.generator_scaler._scale.fill_(1.0)
    original = losses.l1
    losses.l1 = lambda *args: original(*args) * torch.nan
    try:
        metrics = step([batch_of()])
    finally:
        losses.l1 = original
    assert metrics.skipped_updates == metrics.failed_updates == 1


def metrics_of(failed: bool):
    _, _, step = build()
    values = step([batch_of()])
    norm = torch.tensor(torch.nan) if failed else values.generator_gradient_norm
    return dataclasses.replace(
        values, failed_updates=torch.tensor(int(failed)), generator_gradient_norm=norm
    )


def test_only_failures_without_a_good_step_between_add_up():
    good, bad = metrics_of(False), metrics_of(True)
    watch = FiniteWatch(limit=2)
    for number, metrics in enumerate([bad, good, bad, good], start=1):
        watch.add(number, metrics)
    assert [failed.number for failed in watch.failed()] == [1, 3]
    assert watch.failure is None
    for number, metrics in enumerate([bad, bad], start=5):
        watch.add(number, metrics)
    assert [failed.networks for failed in watch.failed()] == [("generator",)] * 2
    assert "up to step 6" in watch.failure
