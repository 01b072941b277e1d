import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.merge_shards import merge_splits
from data_prep.photos import FolderSource
from data_prep.shard_file import read_sidecar
from data_prep.writer import write_splits
from pix2pix.cli.progress import progress
from pix2pix.data.index import index_bytes, index_path, index_shard, read_index
from pix2pix.data.order import permutation
from pix2pix.data.shards import open_split, read_manifest
from pix2pix.errors import UserError
from tests.photographs import encoded, grayish, write_folder
from tests.shard_runs import (
    NUM_COLOR,
    NUM_PHOTOS,
    as_earlier_version,
    contents,
    plans_for,
    write,
)


def test_every_photograph_is_in_one_shard_or_among_the_rejects(
    clean_run: Path, photos: Path
) -> None:
    listed = [photo.name for photo in FolderSource(photos).list_photos()]
    sources = []
    for shard in open_split(clean_run, "train").shards:
        with tarfile.open(clean_run / shard.name) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    metadata = json.load(tar.extractfile(member))  # type: ignore[arg-type]
                    assert listed[int(member.name.partition(".")[0])] == metadata["source"]
                    sources.append(metadata["source"])
    rejects = [json.loads(line) for line in (clean_run / "rejected.jsonl").open()]
    assert sorted(sources + [reject["source"] for reject in rejects]) == sorted(listed)
    assert rejects == [
        {"source": "broken.jpg", "split": "train", "reason": "truncated"},
        {"source": "empty.jpg", "split": "train", "reason": "empty_file"},
        {"source": "gray.png", "split": "train", "reason": "near_gray"},
        {"source": "small.png", "split": "train", "reason": "too_small"},
    ]


def test_shard_i_is_slice_i_of_the_seeded_permutation(clean_run: Path) -> None:
    order = permutation(NUM_PHOTOS, 0, "train")
    for number, shard in enumerate(open_split(clean_run, "train").shards):
        keys = [int(key) for key in index_shard(clean_run / shard.name).names]
        wanted = order[5 * number : 5 * number + 5].tolist()
        assert keys == [index for index in wanted if index in keys]
        assert len(keys) == shard.num_samples <= 5


def test_the_manifest_says_what_the_shards_are(clean_run: Path) -> None:
    split = open_split(clean_run, "train")
    assert split.num_samples == NUM_COLOR
    assert split.short_side == 48
    assert split.rejected == {"empty_file": 1, "near_gray": 1, "too_small": 1, "truncated": 1}
    for shard in split.shards:
        data = (clean_run / shard.name).read_bytes()
        assert shard.bytes == len(data)
        assert shard.sha256 == hashlib.sha256(data).hexdigest()


def test_a_finished_folder_holds_an_index_of_each_shard(clean_run: Path) -> None:
    shards = open_split(clean_run, "train").shards
    for shard in shards:
        index = read_index(index_path(clean_run, shard.name))
        expected = index_shard(clean_run / shard.name, shard.sha256)
        assert index_bytes(index) == index_bytes(expected)
    names = {path.name for path in clean_run.iterdir()}
    made = {shard.name.removesuffix(".tar") for shard in shards}
    each = {f"{name}{end}" for name in made for end in (".tar", ".json", ".index.npz")}
    assert names == each | {"manifest.json", "rejected.jsonl"}


def test_a_lost_index_is_made_again_with_the_manifest(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_run, out)
    (out / "train-000001.index.npz").unlink()
    (out / "manifest.json").unlink()
    assert write(plans_for(photos, out)) == 0
    assert contents(out) == contents(clean_run)


def test_where_nothing_is_rejected_there_is_no_list_of_rejects(tmp_path: Path) -> None:
    write(plans_for(write_folder(tmp_path / "photos", 4), tmp_path / "out"))
    assert "manifest.json" in contents(tmp_path / "out")
    assert "rejected.jsonl" not in contents(tmp_path / "out")


def test_members_carry_no_time_and_no_owner(clean_run: Path) -> None:
    with tarfile.open(clean_run / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    assert [member.name[9:] for member in members[:3]] == [".color.jpg", ".gray.jpg", ".json"]


def test_sample_descriptions_name_source_and_sizes(clean_run: Path) -> None:
    with tarfile.open(clean_run / "train-000000.tar") as tar:
        metadata = json.load(tar.extractfile(tar.getmembers()[2]))  # type: ignore[arg-type]
    assert metadata["source"] == metadata["id"] + ".jpg"
    assert (metadata["width"], metadata["height"]) == (60, 48)
    assert (metadata["photo_width"], metadata["photo_height"]) == (80, 64)


def test_plain_webdataset_reads_every_sample(clean_run: Path) -> None:
    import webdataset  # which imports torch: the others need not wait for it

    split = open_split(clean_run, "train")
    urls = [str(clean_run / shard.name) for shard in split.shards]
    keys = []
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        color = Image.open(io.BytesIO(sample["color.jpg"]))
        gray = Image.open(io.BytesIO(sample["gray.jpg"]))
        assert color.size == gray.size == (60, 48)
        assert np.abs(np.asarray(color.convert("L"), int) - np.asarray(gray, int)).mean() < 1
        keys.append(sample["__key__"])
    assert keys == [key for url in urls for key in index_shard(Path(url)).names]
    assert len(set(keys)) == NUM_COLOR


def test_other_seeds_give_other_shards(clean_run: Path, photos: Path, tmp_path: Path) -> None:
    write(plans_for(photos, tmp_path, seed=1))
    first, second = (index_shard(out / "train-000000.tar").names for out in (clean_run, tmp_path))
    assert set(first) != set(second)


def test_a_finished_split_is_left_alone(clean_run: Path, photos: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in clean_run.glob("*.*")}
    assert write(plans_for(photos, clean_run)) == 0
    assert {path: path.stat().st_mtime_ns for path in clean_run.glob("*.*")} == before


def test_a_copy_without_sidecars_is_finished_too(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    for name, data in contents(clean_run).items():
        if not name.startswith("train") or name.endswith(".tar"):
            (tmp_path / name).write_bytes(data)
    assert write(plans_for(photos, tmp_path)) == 0


@pytest.mark.parametrize(
    "damage", ["missing", "altered", "another", "no sidecar", "cut sidecar", "foreign sidecar"]
)
def test_a_lost_shard_is_made_again(
    clean_run: Path, photos: Path, tmp_path: Path, damage: str
) -> None:
    for name, data in contents(clean_run).items():
        (tmp_path / name).write_bytes(data)
    if "sidecar" in damage:
        (tmp_path / "manifest.json").unlink()
    match damage:
        case "missing":
            (tmp_path / "train-000001.tar").unlink()
        case "altered":
            (tmp_path / "train-000001.tar").write_bytes(b"x")
        case "another":
            (tmp_path / "manifest.json").unlink()
            for kind in ("tar", "json"):
                shutil.copy(tmp_path / f"train-000000.{kind}", tmp_path / f"train-000001.{kind}")
        case "no sidecar":
            (tmp_path / "train-000001.json").unlink()
        case "cut sidecar":
            (tmp_path / "train-000001.json").write_bytes(b'{"prep": {')
        case "foreign sidecar":
            other = (tmp_path / "train-000001.json").read_text().replace('"seed": 0', '"seed": 1')
            (tmp_path / "train-000001.json").write_text(other)
    assert write(plans_for(photos, tmp_path)) == 5
    assert contents(tmp_path) == contents(clean_run)


@pytest.mark.parametrize("finished", [True, False])
def test_other_parameters_and_photographs_are_refused(
    clean_run: Path, photos: Path, tmp_path: Path, finished: bool
) -> None:
    for name, data in contents(clean_run).items():
        if finished or name.startswith("train"):
            (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=r": seed 0 there, 3 now; short_side 48 there, 64 now\."):
        write(plans_for(photos, tmp_path, seed=3, short_side=64))
    fewer = write_folder(tmp_path / "fewer", 9)
    with pytest.raises(UserError, match=r"photos [0-9a-f]{16} there.*num_photos 27 there, 9 now"):
        write(plans_for(fewer, tmp_path))


@pytest.mark.parametrize("finished", [True, False])
def test_shards_of_the_earlier_writer_are_kept_whole_or_refused_once(
    clean_run: Path, photos: Path, tmp_path: Path, finished: bool
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_run, out)
    as_earlier_version(out)
    earlier = contents(out)
    if finished:
        assert write(plans_for(photos, out)) == 0
        assert contents(out) == earlier
        (out / "train-000001.tar").unlink()
    else:
        (out / "manifest.json").unlink()
        with pytest.raises(UserError, match="an earlier version began"):
            merge_splits(out)
    with pytest.raises(UserError, match="an earlier version began") as refused:
        write(plans_for(photos, out))
    command = str(refused.value).splitlines()[-1]
    subprocess.run(["sh", "-c", command], check=True)
    (out / "manifest.json").unlink(missing_ok=True)
    write(plans_for(photos, out))
    assert contents(out) == contents(clean_run)


def test_other_parameters_than_those_of_the_earlier_writer_are_refused(
    clean_run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_run, out)
    as_earlier_version(out)
    with pytest.raises(UserError, match=r"seed 0 there, 3 now"):
        write(plans_for(photos, out, seed=3))


def test_a_second_split_joins_the_manifest(clean_run: Path, photos: Path, tmp_path: Path) -> None:
    others = write_folder(tmp_path / "others", 4)
    (others / "gray.png").write_bytes(encoded(grayish(), "PNG"))
    out = tmp_path / "out"
    write(plans_for(others, out, "val"))
    write(plans_for(photos, out))
    manifest = read_manifest(out)
    assert set(manifest.splits) == {"train", "val"}
    assert manifest.splits["train"] == read_manifest(clean_run).splits["train"]
    assert manifest.splits["val"].num_samples == 4
    splits = [json.loads(line)["split"] for line in (out / "rejected.jsonl").open()]
    assert splits == ["train"] * 4 + ["val"]


def test_val_fraction_cuts_off_a_disjoint_split(photos: Path, tmp_path: Path) -> None:
    keys = {}
    for name in ("once", "again"):
        out = tmp_path / name
        plans = plans_for(photos, out, val_fraction=0.25)
        assert [(plan.split, plan.num_photos) for plan in plans] == [("train", 20), ("val", 7)]
        write(plans, num_workers=2 if name == "again" else 1)
        for split in ("train", "val"):
            shards = open_split(out, split).shards
            keys[name, split] = {k for s in shards for k in index_shard(out / s.name).names}
    assert contents(tmp_path / "once") == contents(tmp_path / "again")
    train, val = keys["once", "train"], keys["once", "val"]
    assert not train & val
    assert len(train) + len(val) == NUM_COLOR
    other = plans_for(photos, tmp_path, val_fraction=0.25, seed=1)[1]
    assert {index for task in other.tasks for index, _ in task.members} != {int(k) for k in val}


def test_val_fractions_that_leave_nothing_are_refused(photos: Path, tmp_path: Path) -> None:
    for fraction in (0.001, 0.999):
        with pytest.raises(UserError, match="leaves one split empty"):
            plans_for(photos, tmp_path, val_fraction=fraction)
    with pytest.raises(UserError, match="give --split another name"):
        plans_for(photos, tmp_path, "val", val_fraction=0.5)


@pytest.mark.parametrize("name", ["", "Train", "a-b", "../a", "a/b", "a.b"])
def test_names_of_splits_are_plain(photos: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="small letters"):
        plans_for(photos, tmp_path, name)


def test_empty_shards_are_not_written_but_done(photos: Path, tmp_path: Path) -> None:
    assert write(plans_for(photos, tmp_path, samples_per_shard=1)) == NUM_PHOTOS
    sidecars = [read_sidecar(path) for path in sorted(tmp_path.glob("train-*.json"))]
    assert len(sidecars) == NUM_PHOTOS
    counts = Counter(sidecar.shard.num_samples for sidecar in sidecars if sidecar)
    assert counts == {1: NUM_COLOR, 0: 4}
    assert len(list(tmp_path.glob("*.tar"))) == NUM_COLOR
    assert open_split(tmp_path, "train").sample_counts == (1,) * NUM_COLOR
    (tmp_path / "manifest.json").unlink()
    assert write(plans_for(photos, tmp_path, samples_per_shard=1)) == 0
    assert open_split(tmp_path, "train").num_samples == NUM_COLOR


@pytest.mark.parametrize("name", ["train-000001.tar", "manifest.json", "rejected.jsonl"])
def test_leftovers_of_a_killed_run_are_removed(
    clean_run: Path, photos: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / f".{name}.4711.tmp").write_bytes(b"half")
    write(plans_for(photos, tmp_path))
    assert contents(tmp_path) == contents(clean_run)


def test_nothing_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(encoded(grayish(), "PNG"))
    (tmp_path / "photos/b.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match=r"no photograph is left.*1 empty_file, 1 near_gray"):
            write_splits(plans_for(tmp_path / "photos", tmp_path / "out"), 1)
    assert not (tmp_path / "out/manifest.json").exists()
    assert len((tmp_path / "out/rejected.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_progress_counts_every_photograph_and_begins_at_those_done(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    bars = []

    def watched(*arguments, **named):
        bars.append(progress(*arguments, **named))
        return bars[-1]

    monkeypatch.setattr("data_prep.writer.progress", watched)
    write(plans_for(photos, tmp_path), num_workers)
    for name in ("manifest.json", "train-000000.json"):
        (tmp_path / name).unlink()
    write(plans_for(photos, tmp_path), num_workers)
    assert [bar.n for bar in bars] == [bar.total for bar in bars] == [NUM_PHOTOS] * 2
    assert [bar.initial for bar in bars] == [0, NUM_PHOTOS - 5]


def test_an_unreadable_photograph_is_counted(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", 2)
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    write(plans_for(photos, tmp_path / "out"))
    assert open_split(tmp_path / "out", "train").rejected == {"unreadable": 1}


@pytest.mark.parametrize("num_flushes", [4, 5, 6, 7])  # in the second shard: tar, name, twice
def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_done(
    photos: Path,
    clean_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_flushes: int,
) -> None:
    calls = iter(range(100))
    fsync = os.fsync

    def full_after_a_while(descriptor: int) -> None:
        if next(calls) >= num_flushes:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full_after_a_while)
        with pytest.raises(UserError, match=r"no disk space left for .*run the same command again"):
            write(plans_for(photos, tmp_path))
    assert not list(tmp_path.glob(".*.tmp"))
    made = contents(tmp_path)
    assert 0 < len(made) < len(contents(clean_run))
    assert made.items() <= contents(clean_run).items()
    write(plans_for(photos, tmp_path))
    assert contents(tmp_path) == contents(clean_run)


def test_a_place_that_cannot_be_written_to_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        write_splits(plans_for(photos, tmp_path / "file"), 1)
