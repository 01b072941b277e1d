import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.merge_shards import MergeShardsOptions, merge_shards
from data_prep.ownership import Part, own
from data_prep.writer import write_splits
from pix2pix.errors import UserError
from tests.shard_runs import ENVIRONMENT, NUM_PHOTOS, contents, plans_for, write


def options_for(photos: Path, out: Path, **changes) -> MakeShardsOptions:
    """What `plans_for` plans, as the options of a command."""
    defaults = {
        "split": "train",
        "short_side": 48,
        "min_short_side": 40,
        "samples_per_shard": 5,
        "num_workers": 1,
    }
    return MakeShardsOptions(photos=photos, out=out, **defaults | changes)


def write_part(photos: Path, out: Path, text: str, **changes) -> int:
    return write_splits(plans_for(photos, out, **changes), 1, Part.parse(text))


def merge(folder: Path) -> int:
    return merge_shards(MergeShardsOptions(shards=folder))


@pytest.mark.parametrize("order", [*permutations("123")][::2])
def test_parts_in_any_order_are_merged_to_the_bytes_of_one_machine(
    clean_run: Path, photos: Path, tmp_path: Path, order: tuple[str, ...]
) -> None:
    done = [write_part(photos, tmp_path, f"{number}/3") for number in order]
    (tmp_path / ".manifest.json.4711.tmp").write_bytes(b"of a merge that was killed")
    assert sum(done) == NUM_PHOTOS
    assert not (tmp_path / "manifest.json").exists()
    assert merge(tmp_path) == 0
    assert contents(tmp_path) == contents(clean_run)


def test_parts_made_at_the_same_time_with_a_split_cut_off(photos: Path, tmp_path: Path) -> None:
    flags = ["--photos", photos, "--split", "train", "--val_fraction", 0.25, "--short_side", 48]
    flags += ["--min_short_side", 40, "--samples_per_shard", 5, "--num_workers", 2]
    make_shards(options_for(photos, tmp_path / "one", val_fraction=0.25))
    command = [sys.executable, "-m", "data_prep.make_shards", *flags, "--out", tmp_path / "parts"]
    runs = [
        subprocess.Popen(
            [*map(str, command), "--part", f"{number}/3"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    for number, run in enumerate(runs, start=1):
        told, _ = run.communicate(timeout=60)
        assert run.returncode == 0
        assert f"part {number}/3 is done" in told
        assert f"data_prep.merge_shards --shards {tmp_path / 'parts'}" in told
    assert merge(tmp_path / "parts") == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")


def test_parts_from_folders_of_their_own_are_merged_once_copied(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        write_part(photos, tmp_path / str(number), f"{number}/2")
        shutil.copytree(tmp_path / str(number), tmp_path / "all", dirs_exist_ok=True)
    assert merge(tmp_path / "all") == 0
    assert contents(tmp_path / "all") == contents(clean_run)


def test_a_merge_is_done_once(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_part(photos, tmp_path, "1/1")
    assert merge(tmp_path) == 0
    assert "train: 23 pairs of 27 photographs in 6 shards" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")}
    assert merge(tmp_path) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")} == before


def test_a_run_of_one_machine_publishes_what_parts_made(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    for part in ("1/2", "2/2"):
        write_part(photos, tmp_path, part)
    assert write(plans_for(photos, tmp_path)) == 0
    assert contents(tmp_path) == contents(clean_run)
    assert write_part(photos, tmp_path, "1/2") == 0


def test_a_part_goes_on_where_it_was_and_leaves_others_alone(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    write_part(photos, tmp_path, "1/2")
    assert {path.name for path in tmp_path.glob("*.tar")} == {
        f"train-00000{index}.tar" for index in (0, 2, 4)
    }
    (tmp_path / "train-000002.tar").unlink()
    mine, others = (tmp_path / f".train-00000{index}.tar.77.tmp" for index in (2, 3))
    for leftover in (mine, others):
        leftover.write_bytes(b"half")
    assert write_part(photos, tmp_path, "1/2") == 5
    assert not mine.exists()
    assert others.exists()
    assert write_part(photos, tmp_path, "2/2") == 12
    assert merge(tmp_path) == 0
    assert contents(tmp_path) == contents(clean_run)


def test_missing_shards_are_named_with_their_part(photos: Path, tmp_path: Path) -> None:
    changes = {"val_fraction": 0.25, "samples_per_shard": 2}  # 10 shards, and 4 of val
    write_part(photos, tmp_path, "1/3", **changes)
    write_part(photos, tmp_path, "3/3", **changes)
    with pytest.raises(
        UserError,
        match=r"lacks 5 of 14 shards.*: train-000001.tar, train-000004.tar, train-000007.tar, "
        r"val-000000.tar, val-000003.tar \(--part 2/3\)",
    ):
        merge(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    write_part(photos, tmp_path, "2/3", **changes)
    (tmp_path / "train-000003.tar").write_bytes(b"cut")
    (tmp_path / "val-000001.json").unlink()
    for lock in tmp_path.glob(".lock*"):  # a copy may lack the number of parts
        lock.unlink()
    with pytest.raises(UserError, match=r"lacks 2 .*train-000003.tar, val-000001.tar\. Run make"):
        merge(tmp_path)


def test_a_val_without_the_split_it_was_cut_from_is_told(photos: Path, tmp_path: Path) -> None:
    write_part(photos, tmp_path, "1/1", val_fraction=0.25)
    for path in tmp_path.glob("train-*"):
        path.unlink()
    with pytest.raises(UserError, match="cut off from another split, but no shard of that yet"):
        merge(tmp_path)


def test_parts_made_with_other_parameters_are_refused(photos: Path, tmp_path: Path) -> None:
    write_part(photos, tmp_path / "a", "1/2")
    with pytest.raises(UserError, match="seed 0 there, 3 now"):
        write_part(photos, tmp_path / "a", "2/2", seed=3)
    write_part(photos, tmp_path / "b", "2/2", seed=3)
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    with pytest.raises(
        UserError, match=r"train-000000.tar and train-000001.tar in .*different.*: seed 0 and 3\."
    ):
        merge(tmp_path / "a")


def test_splits_that_are_there_already_stay(photos: Path, tmp_path: Path) -> None:
    for folder in ("one", "parts"):
        write(plans_for(photos, tmp_path / folder, "val"))
    write(plans_for(photos, tmp_path / "one"))
    write_part(photos, tmp_path / "parts", "1/1")
    assert merge(tmp_path / "parts") == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")


def test_what_cannot_be_merged_is_told(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        merge(tmp_path / "absent")
    with pytest.raises(UserError, match="has no shards yet"):
        merge(tmp_path)
    assert not list(tmp_path.iterdir())
    write_part(photos, tmp_path, "1/1")
    with own(tmp_path, Part(1, 2)), pytest.raises(UserError, match="another make_shards"):
        merge(tmp_path)
