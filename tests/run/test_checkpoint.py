"""Promises of a checkpoint: sharded, complete or absent, the same on any number of ranks."""

import contextlib
import ctypes
import io
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from torch.distributed.checkpoint import FileSystemReader

from pix2pix.errors import UserError
from pix2pix.run import checkpoint_files as files
from pix2pix.run.distributed import Distributed
from pix2pix.run.run_directory import RunDirectory
from pix2pix.run.state import EMA_NAME
from pix2pix.run.weights import load_generator, newest_checkpoint
from pix2pix.training.trainer import Trainer
from tests.ranks import run_ranks
from tests.small_training import (
    error_at_start,
    error_of,
    fit,
    tensor_digests,
    tiny_config,
    trainer_of,
)


@pytest.fixture(scope="module")
def saved(tiny_shards, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A run that two ranks saved, and the digests of its state."""
    run = tmp_path_factory.mktemp("saved") / "run"
    result = run_ranks(fit, 2, tiny_config(tiny_shards, run))
    return run, result[0]["digests"]


def good_checkpoints(run: Path) -> list[str]:
    """Names of those that verify, newest first."""
    config_hash = RunDirectory(run).config_hash()
    found = files.checkpoints(run / "checkpoints")
    return [path.name for path in found if files.verify(path, config_hash) is None]


def restored_digests(config):
    trainer = trainer_of(config)
    return trainer.state.step, tensor_digests({"state": trainer.state.state_dict()})


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_saved_on_2_ranks_it_loads_bit_equal_on(saved, tiny_shards, world_size):
    run, digests = saved
    for step, found in run_ranks(restored_digests, world_size, tiny_config(tiny_shards, run)):
        assert step == 4
        assert found == digests


def bytes_read_by_a_restore(config):
    """(of them for checksums, of them into the state) of this rank, and the state's digests."""
    counts = {"sums": 0, "state": 0}
    sum_of, read_data = files._sum_of, FileSystemReader.read_data

    def counted_sum(path):
        counts["sums"] += path.stat().st_size
        return sum_of(path)

    def counted_read(reader, plan, planner):
        paths = {reader.storage_data[item.storage_index].relative_path for item in plan.items}
        counts["state"] += sum((reader.path / path).stat().st_size for path in paths)
        return read_data(reader, plan, planner)

    files._sum_of, FileSystemReader.read_data = counted_sum, counted_read
    _, digests = restored_digests(config)
    return counts["sums"], counts["state"], digests


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_resume_reads_a_checkpoint_once_for_its_checksums_and_once_for_all_ranks(
    saved, tiny_shards, world_size
):
    run, digests = saved
    checkpoint = run / "checkpoints" / "step_000000004"
    shares = sum(path.stat().st_size for path in checkpoint.glob("*.distcp"))
    every = shares + (checkpoint / ".metadata").stat().st_size
    found = run_ranks(bytes_read_by_a_restore, world_size, tiny_config(tiny_shards, run))
    assert sum(sums for sums, *_ in found) == every
    assert [state for _, state, _ in found] == [shares] + [0] * (world_size - 1)
    assert [mine for *_, mine in found] == [digests] * world_size


def test_each_rank_writes_about_its_share(saved):
    checkpoint = saved[0] / "checkpoints" / "step_000000004"
    sizes = [path.stat().st_size for path in checkpoint.glob("*.distcp")]
    assert len(sizes) == 2
    assert max(sizes) <= 1.1 * sum(sizes) / 2


def test_state_file_names_step_samples_ranks_versions_training_and_checksums(saved):
    facts = json.loads((saved[0] / "checkpoints/step_000000004/state.json").read_text())
    assert (facts["step"], facts["samples_seen"], facts["world_size"]) == (4, 24, 2)
    assert {"python", "torch", "accelerate"} <= facts["versions"].keys()
    assert facts["config_hash"] == RunDirectory(saved[0]).config_hash()
    assert facts["files"].keys() == {"__0_0.distcp", "__1_0.distcp", ".metadata"}
    assert all({"bytes", "crc32"} == entry.keys() for entry in facts["files"].values())


def copy_of(saved, tmp_path) -> Path:
    return shutil.copytree(saved[0], tmp_path / "run")


def output_of_start(config):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        trainer_of(config)
    return output.getvalue()


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def make_unreadable(checkpoint: Path) -> None:
    """A checkpoint as it was written, but by something that torch can't read."""
    (checkpoint / ".metadata").write_bytes(b"no pickle")
    facts = files.read_facts(checkpoint)
    (checkpoint / "state.json").unlink()
    sums = files.summed([*checkpoint.iterdir()])
    files.publish(checkpoint.rename(checkpoint.with_name(".aside")), checkpoint, facts, sums)


def give_to_another_training(checkpoint: Path) -> None:
    facts = files.read_facts(checkpoint) | {"config_hash": "0" * 16}
    sums = facts.pop("files")
    files.publish(checkpoint.rename(checkpoint.with_name(".aside")), checkpoint, facts, sums)


DAMAGE = {
    ".metadata is missing": lambda path: (path / ".metadata").unlink(),
    "__1_0.distcp is missing": lambda path: (path / "__1_0.distcp").unlink(),
    "__1_0.distcp is 12 bytes short": lambda path: os.truncate(
        path / "__1_0.distcp", (path / "__1_0.distcp").stat().st_size - 12
    ),
    "the checksum of __1_0.distcp differs": lambda path: flip_bit(path / "__1_0.distcp"),
    "the checksum of .metadata differs": lambda path: flip_bit(path / ".metadata"),
    "state.json is missing": lambda path: (path / "state.json").unlink(),
    "state.json is damaged": lambda path: flip_bit(path / "state.json"),
    "it can't be read: ": make_unreadable,
    "it belongs to another training": give_to_another_training,
}


def starts(configs):
    """Start each training on this rank; what was printed, the step and the digests."""
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    found = []
    for config in configs:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            state = Trainer(config, distributed).state
        found.append((output.getvalue(), state.step, tensor_digests({"state": state.state_dict()})))
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_damaged_checkpoint_is_named_with_the_reason_and_the_one_before_it_is_loaded(
    saved, tiny_shards, tmp_path, world_size
):
    configs = []
    for number, damage in enumerate(DAMAGE.values()):
        run = shutil.copytree(saved[0], tmp_path / str(number))
        damage(copy_under_another_name(run, 9))
        configs.append(tiny_config(tiny_shards, run))
    ranks = run_ranks(starts, world_size, configs)
    for reason, (output, _, _) in zip(DAMAGE, ranks[0], strict=True):
        assert f"ignoring step_000000009: {reason}" in output
        assert "going on from step 4" in output
    for rank in ranks:
        assert all((step, digests) == (4, saved[1]) for _, step, digests in rank)


def copy_under_another_name(run: Path, step: int) -> Path:
    root = run / "checkpoints"
    return shutil.copytree(root / "step_000000004", root / f"step_{step:09d}")


def test_it_goes_back_as_far_as_it_must_and_names_each(saved, tiny_shards, tmp_path):
    run = copy_of(saved, tmp_path)
    for step in (7, 8, 9):
        flip_bit(copy_under_another_name(run, step) / "__0_0.distcp")
    output = run_ranks(output_of_start, 1, tiny_config(tiny_shards, run))[0]
    ignored = [line.split()[1] for line in output.splitlines() if line.startswith("ignoring")]
    assert ignored == ["step_000000009:", "step_000000008:", "step_000000007:"]
    assert "going on from step 4" in output


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
    messages = run_ranks(error_at_start, 2, tiny_config(tiny_shards, run))
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


def test_a_full_disk_ends_in_a_clear_error_and_the_same_command_goes_on_later(
    saved, tiny_shards, tmp_path
):
    run = copy_of(saved, tmp_path)
    config = tiny_config(tiny_shards, run, total_steps=7, checkpoint_every=1)
    messages = run_ranks(message_of_fit_without_room, 2, config)
    assert messages[0] == messages[1]
    assert f"could not save a checkpoint in {run / 'checkpoints'}: File too large;" in messages[0]
    assert good_checkpoints(run) == ["step_000000004"]
    assert "removing .step_000000005.partial" in run_ranks(output_of_start, 1, config)[0]
    resumed = run_ranks(fit, 2, config)[0]
    assert (resumed["first_step"], resumed["step"]) == (4, 7)


def message_of_fit_without_room(config):
    trainer = trainer_of(config)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing more is an error: EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    return error_of(trainer.fit)


def test_a_read_only_folder_is_a_clear_error_before_and_during_a_training(
    saved, tiny_shards, tmp_path
):
    run = copy_of(saved, tmp_path)
    folder = run / "checkpoints"
    config = tiny_config(tiny_shards, run, total_steps=6)
    try:
        before, during = run_ranks(messages_where_the_folder_is_read_only, 1, config, folder)[0]
    finally:
        folder.chmod(0o755)
    assert before == f"can't write to {folder}: it is read-only for this user"
    assert f"could not save a checkpoint in {folder}: Permission denied" in during
    assert good_checkpoints(run) == ["step_000000004"]


def messages_where_the_folder_is_read_only(config, folder):
    give_up_privileges()
    folder.chmod(0o555)
    before = error_at_start(config)
    folder.chmod(0o755)
    trainer = trainer_of(config)
    folder.chmod(0o555)
    return before, error_of(trainer.fit)


def give_up_privileges() -> None:
    """A permission binds root, too, once it has dropped its capabilities: capset(2)."""
    version_3, this_process = 0x20080522, 0
    header = (ctypes.c_uint32 * 2)(version_3, this_process)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0


def test_evaluation_and_coloring_verify_and_name_what_they_pass_over(saved, tmp_path, capsys):
    run = copy_of(saved, tmp_path)
    flip_bit(copy_under_another_name(run, 9) / "__1_0.distcp")
    assert newest_checkpoint(run).name == "step_000000004"
    words = "ignoring step_000000009: the checksum of __1_0.distcp differs"
    assert capsys.readouterr().out.strip() == words
    flip_bit(run / "checkpoints/step_000000004/.metadata")
    with pytest.raises(UserError, match="is complete; restore one from a copy"):
        newest_checkpoint(run)


def generator_digests(run):
    generator, config, step = load_generator(run, newest_checkpoint(run))
    return tensor_digests(generator.state_dict()), config.image_size, step


def test_coloring_gets_the_averaged_generator(saved):
    digests, image_size, step = run_ranks(generator_digests, 1, saved[0])[0]
    assert (image_size, step) == (64, 4)
    prefix = f"state.{EMA_NAME}."
    averaged = {n.removeprefix(prefix): d for n, d in saved[1].items() if n.startswith(prefix)}
    assert digests == averaged
