"""Promises of a checkpoint: sharded, complete or absent, the same on any number of ranks."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from pix2pix.checkpoint import Checkpointer, load_generator, newest_checkpoint
from pix2pix.checkpoint_files import checkpoints, verify
from pix2pix.distributed import Distributed
from pix2pix.errors import UserError
from pix2pix.run_directory import RunDirectory
from tests.ranks import run_ranks
from tests.training import fit, tensor_digests, tiny_config, trainer_of


@pytest.fixture(scope="module")
def saved(tiny_shards, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A run that two ranks saved, and the digests of its state."""
    run = tmp_path_factory.mktemp("saved") / "run"
    result = run_ranks(fit, 2, tiny_config(tiny_shards, run))
    return run, result[0]["digests"]


def good_checkpoints(run: Path) -> list[str]:
    """Names of those that verify, newest first."""
    config_hash = RunDirectory(run).config_hash()
    found = checkpoints(run / "checkpoints")
    return [path.name for path in found if verify(path, config_hash) is None]


def restored_digests(config):
    trainer = trainer_of(config)
    return trainer.state.step, tensor_digests({"state": trainer.state.state_dict()})


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_saved_on_2_ranks_it_loads_bit_equal_on(saved, tiny_shards, world_size):
    run, digests = saved
    for step, found in run_ranks(restored_digests, world_size, tiny_config(tiny_shards, run)):
        assert step == 4
        assert found == digests


def test_each_rank_writes_about_its_share(saved):
    checkpoint = saved[0] / "checkpoints" / "step_000000004"
    sizes = [path.stat().st_size for path in checkpoint.glob("*.distcp")]
    assert len(sizes) == 2
    assert max(sizes) < 0.6 * sum(sizes)


def test_state_file_names_step_samples_ranks_and_versions(saved):
    facts = json.loads((saved[0] / "checkpoints/step_000000004/state.json").read_text())
    assert (facts["step"], facts["samples_seen"], facts["world_size"]) == (4, 24, 2)
    assert {"python", "torch", "accelerate"} <= facts["versions"].keys()


def copy_of(saved, tmp_path) -> Path:
    return shutil.copytree(saved[0], tmp_path / "run")


def output_of_start(config):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        trainer_of(config)
    return output.getvalue()


def message_of(config):
    try:
        trainer_of(config)
    except UserError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize("damage", ["metadata", "cut short", "missing shard", "state.json"])
def test_an_incomplete_checkpoint_is_ignored_for_the_one_before(
    saved, tiny_shards, tmp_path, damage
):
    run = copy_of(saved, tmp_path)
    newer = shutil.copytree(run / "checkpoints/step_000000004", run / "checkpoints/step_000000009")
    assert good_checkpoints(run)[0] == newer.name
    shard = newer / "__1_0.distcp"
    if damage == "metadata":
        (newer / ".metadata").unlink()
    elif damage == "cut short":
        os.truncate(shard, shard.stat().st_size - 1)
    elif damage == "missing shard":
        shard.unlink()
    else:
        (newer / "state.json").write_text('{"step": 9')
    assert good_checkpoints(run) == ["step_000000004"]
    step, digests = run_ranks(restored_digests, 1, tiny_config(tiny_shards, run))[0]
    assert (step, digests) == (4, saved[1])


def test_a_damaged_checkpoint_is_told_and_does_not_stand_in_the_way_of_its_step(
    saved, tiny_shards, tmp_path
):
    run = copy_of(saved, tmp_path)
    damaged = shutil.copytree(
        run / "checkpoints/step_000000004", run / "checkpoints/step_000000006"
    )
    (damaged / ".metadata").unlink()
    config = tiny_config(tiny_shards, run, total_steps=6)
    assert "ignoring step_000000006" in run_ranks(output_of_start, 1, config)[0]
    assert run_ranks(fit, 2, config)[0]["step"] == 6
    assert good_checkpoints(run) == ["step_000000006", "step_000000004"]


def test_without_any_complete_checkpoint_it_does_not_start_over_silently(
    saved, tiny_shards, tmp_path
):
    run = copy_of(saved, tmp_path)
    (run / "checkpoints/step_000000004/.metadata").unlink()
    messages = run_ranks(message_of, 2, tiny_config(tiny_shards, run))
    assert messages[0] == messages[1]
    assert "no checkpoint" in messages[0]
    assert "start again from step 0" in messages[0]


def test_what_a_killed_save_left_is_cleaned_up_and_said(saved, tiny_shards, tmp_path):
    run = copy_of(saved, tmp_path)
    partial = run / "checkpoints/.step_000000009.partial"
    partial.mkdir()
    (partial / "__0_0.distcp").write_bytes(b"half")
    output = run_ranks(output_of_start, 1, tiny_config(tiny_shards, run))[0]
    assert "going on from step 4" in output
    assert "removing .step_000000009.partial: its save was cut short" in output
    assert not partial.exists()


def test_the_newest_checkpoints_are_kept(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", checkpoint_every=1, keep_checkpoints=2)
    run_ranks(fit, 2, config)
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["step_000000003", "step_000000004"]


def test_saving_never_changes_the_run(tiny_shards, tmp_path):
    often = tiny_config(tiny_shards, tmp_path / "often", checkpoint_every=1)
    once = tiny_config(tiny_shards, tmp_path / "once")
    for a, b in zip(run_ranks(fit, 2, often), run_ranks(fit, 2, once), strict=True):
        weights = {name for name in a["digests"] if "running" not in name}
        assert len(weights) > 100
        assert all(a["digests"][name] == b["digests"][name] for name in weights)


def test_a_save_without_room_is_one_clear_error_and_the_one_before_stays(saved, tmp_path):
    run_ranks(save_beyond_the_file_size_limit, 2, copy_of(saved, tmp_path))
    assert good_checkpoints(tmp_path / "run") == ["step_000000004"]


def save_beyond_the_file_size_limit(run):
    import resource
    import signal

    from tests.test_step import build

    distributed = Distributed(timeout_minutes=1, num_threads=1)
    checkpointer = Checkpointer(
        run / "checkpoints", 3, distributed, RunDirectory(run).config_hash()
    )
    _, state, _ = build()
    state.step = 9
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing more is an error: EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    checkpointer.save(state, samples_seen=0)
    with pytest.raises(UserError, match="could not save a checkpoint"):
        checkpointer.wait()


def generator_digests(run):
    generator, config, step = load_generator(run, newest_checkpoint(run))
    return tensor_digests(generator.state_dict()), config.image_size, step


def test_colouring_gets_the_averaged_generator(saved):
    digests, image_size, step = run_ranks(generator_digests, 1, saved[0])[0]
    assert (image_size, step) == (64, 4)
    prefix = "state.generator_average."
    averaged = {n.removeprefix(prefix): d for n, d in saved[1].items() if n.startswith(prefix)}
    assert digests == averaged
