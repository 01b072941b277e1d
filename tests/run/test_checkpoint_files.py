"""Promises of checkpoints on disk: damage is told, and the last good one stays."""

import shutil
from pathlib import Path

import pytest

from pix2pix.run import checkpoint_files as files

OURS = "0123456789abcdef"


def write_checkpoint(root: Path, step: int, config_hash: str = OURS) -> Path:
    """A small checkpoint of two ranks, published as a training does it."""
    final = root / files.checkpoint_name(step)
    aside = root / f".{final.name}.partial"
    aside.mkdir(parents=True)
    (aside / "__0_0.distcp").write_bytes(bytes(range(200)))
    (aside / "__1_0.distcp").write_bytes(b"123456789")
    (aside / ".metadata").write_bytes(b"what lies where")
    facts = {"step": step, "samples_seen": 6 * step, "config_hash": config_hash}
    files.publish(aside, final, facts, files.summed([*aside.iterdir()]))
    return final


def flip_bit(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def cut(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-num_bytes])


def test_what_was_published_verifies_and_names_every_file(tmp_path):
    final = write_checkpoint(tmp_path / "run", 4)
    assert files.verify(final, OURS) is None
    facts = files.read_facts(final)
    assert facts["step"] == 4
    assert facts["files"].keys() == {"__0_0.distcp", "__1_0.distcp", ".metadata"}
    assert facts["files"]["__1_0.distcp"] == {"bytes": 9, "crc32": "cbf43926"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / ".metadata").unlink(), ".metadata is missing"),
        (lambda path: (path / "state.json").unlink(), "state.json is missing"),
        (lambda path: (path / "__1_0.distcp").unlink(), "__1_0.distcp is missing"),
        (lambda path: cut(path / "__1_0.distcp", 7), "__1_0.distcp is 7 bytes short"),
        (lambda path: cut(path / ".metadata", 1), ".metadata is 1 byte short"),
        (lambda path: cut(path / "state.json", 3), "state.json is damaged"),
        (lambda path: (path / "state.json").write_text("[]"), "state.json is damaged"),
        (lambda path: (path / "state.json").write_bytes(b""), "state.json is damaged"),
        (
            lambda path: (path / "__0_0.distcp").write_bytes(bytes(203)),
            "__0_0.distcp is 3 bytes too long",
        ),
        (lambda path: flip_bit(path / "__0_0.distcp", 900), "the checksum of __0_0.distcp differs"),
        (lambda path: flip_bit(path / ".metadata", 0), "the checksum of .metadata differs"),
    ],
)
def test_damage_is_told_in_a_word(tmp_path, damage, words):
    final = write_checkpoint(tmp_path, 4)
    damage(final)
    assert files.verify(final, OURS) == words


def test_no_flipped_bit_of_the_state_file_changes_what_it_says(tmp_path):
    final = write_checkpoint(tmp_path, 4)
    path = final / "state.json"
    whole, facts = path.read_bytes(), files.read_facts(final)
    told = 0
    for bit in range(8 * len(whole)):
        flip_bit(path, bit)
        if files.find_fault(final, OURS) is None:
            assert files.read_facts(final) == facts  # white space
        else:
            told += 1
        path.write_bytes(whole)
    assert told > 0.8 * 8 * len(whole)


def test_a_checkpoint_of_another_training_is_told(tmp_path):
    stranger = write_checkpoint(tmp_path, 4, config_hash="fedcba9876543210")
    assert files.verify(stranger, OURS) == "it belongs to another training"


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_some_rank_sees_a_flipped_bit_in_any_file(tmp_path, ranks):
    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata"):
        final = write_checkpoint(tmp_path / name, 4)
        flip_bit(final / name, 20)
        seen = [files.verify(final, OURS, rank, ranks) for rank in range(ranks)]
        assert [fault for fault in seen if fault] == [f"the checksum of {name} differs"]


def test_only_whole_names_are_checkpoints_newest_first(tmp_path):
    for step in (9, 1_000_000_000, 40):
        write_checkpoint(tmp_path, step)
    shutil.copytree(tmp_path / "step_000000009", tmp_path / "step_000000009.backup")
    (tmp_path / ".step_000000050.partial").mkdir()
    steps = [int(path.name[5:]) for path in files.checkpoints(tmp_path)]
    assert steps == [1_000_000_000, 40, 9]


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_last_ones_are_kept_and_a_damaged_one_does_not_count(tmp_path):
    kept = [write_checkpoint(tmp_path, step) for step in (1, 2, 3, 4, 5)]
    cut(kept[3] / "__0_0.distcp", 1)
    files.prune(kept[4], 2, OURS, ())
    assert names(tmp_path) == ["step_000000003", "step_000000004", "step_000000005"]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_damaged_newer_one_never_pushes_out_what_was_just_saved(tmp_path, keep):
    """A flipped bit that a resume saw in step 9 is not seen by size; step 6 is saved after it."""
    older, saved, damaged = (write_checkpoint(tmp_path, step) for step in (4, 6, 9))
    flip_bit(damaged / "__0_0.distcp", 77)
    files.prune(saved, keep, OURS, [damaged])
    assert saved.exists()
    assert damaged.exists()
    assert older.exists() == (keep > 1)


def test_what_was_just_saved_stays_even_where_nobody_knows_of_the_damage(tmp_path):
    saved, damaged = (write_checkpoint(tmp_path, step) for step in (6, 9))
    flip_bit(damaged / "__0_0.distcp", 77)
    files.prune(saved, 1, OURS, ())
    assert saved.exists()


def test_a_strangers_checkpoint_is_never_removed(tmp_path):
    stranger = write_checkpoint(tmp_path, 2, config_hash="fedcba9876543210")
    saved = [write_checkpoint(tmp_path, step) for step in (3, 4)]
    files.prune(saved[1], 1, OURS, ())
    assert names(tmp_path) == [stranger.name, saved[1].name]


def test_a_removal_cut_short_leaves_nothing_under_a_checkpoints_name(tmp_path, monkeypatch):
    old = write_checkpoint(tmp_path, 3)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (path / "__0_0.distcp").unlink())
        files.remove(old)
    assert files.checkpoints(tmp_path) == []
    assert files.clean_up(tmp_path) == []
    assert names(tmp_path) == []


@pytest.mark.parametrize("leftover", [".step_000000005.partial", ".step_000000004.partial"])
def test_a_directory_that_was_not_renamed_is_removed_and_told(tmp_path, leftover):
    """Complete or not, beside its final name or not: only the rename makes it a checkpoint."""
    final = write_checkpoint(tmp_path, 4)
    shutil.copytree(final, tmp_path / leftover)
    assert files.clean_up(tmp_path) == [f"removing {leftover}: its save was cut short"]
    assert names(tmp_path) == ["step_000000004"]
    assert files.verify(final, OURS) is None
