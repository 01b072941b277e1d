import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pix2pix.data.shards import (
    Manifest,
    Shard,
    Split,
    index_shard,
    open_split,
    read_manifest,
    write_manifest,
)
from pix2pix.errors import UserError
from pix2pix.system.durable import publish

KINDS = ("gray.jpg", "color.jpg", "json")


def write_tar(path: Path, keys, kinds=KINDS, **options) -> dict[str, bytes]:
    """A tar with members `KEY.KIND`, each with other content."""
    contents = {}
    with tarfile.open(path, "w", **options) as tar:
        for key in keys:
            for number, kind in enumerate(kinds):
                name = f"{key}.{kind}"
                contents[name] = f"{name} ".encode() * (40 + 7 * number)
                info = tarfile.TarInfo(name)
                info.size = len(contents[name])
                tar.addfile(info, io.BytesIO(contents[name]))
    return contents


def split_of(*shards: Shard, name: str = "train") -> Split:
    return Split(name, shards, {"short_side": 286}, {"near_gray": 2})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder with the split "train" of two shards."""
    entries = []
    for number, count in enumerate([3, 2]):
        path = tmp_path / f"train-{number:06d}.tar"
        write_tar(path, [f"{number}{index:05d}" for index in range(count)])
        entries.append(Shard(path.name, count, path.stat().st_size, f"{number}" * 64))
    write_manifest(tmp_path, Manifest({"train": split_of(*entries)}))
    return tmp_path


def test_a_manifest_reads_as_it_was_written(shards: Path) -> None:
    manifest = read_manifest(shards)
    split = manifest.splits["train"]
    assert split.sample_counts == (3, 2)
    assert split.num_samples == 5
    assert split.short_side == 286
    assert split.rejected == {"near_gray": 2}
    before = (shards / "manifest.json").read_bytes()
    write_manifest(shards, manifest)
    assert (shards / "manifest.json").read_bytes() == before


def test_equal_manifests_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    shard = Shard("a.tar", 1, 2, "c")
    for folder, names in (("one", ["train", "val"]), ("two", ["val", "train"])):
        (tmp_path / folder).mkdir()
        splits = {name: split_of(shard, name=name) for name in names}
        write_manifest(tmp_path / folder, Manifest(splits))
    first, second = (tmp_path / folder / "manifest.json" for folder in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_the_digest_is_that_of_the_content() -> None:
    shard, other = Shard("a.tar", 3, 9, "aa"), Shard("b.tar", 3, 9, "bb")
    split = split_of(shard, other)
    assert split.digest == split_of(Shard("x.tar", 3, 9, "aa"), other, name="val").digest
    assert split.digest != split_of(other, shard).digest
    assert split.digest != split_of(shard, Shard("b.tar", 4, 9, "bb")).digest
    assert split.digest != split_of(shard).digest


def test_what_is_no_folder_of_shards_is_told_how_to_become_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*data_prep.make_shards --photos DIR --out"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no manifest\.json.*data_prep.make_shards"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{not json", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "no manifest of shards"),
        (b'{"splits": {}}', "no manifest of shards"),
        (b'{"format": "pix2pix-shards", "version": 7, "splits": {}}', "version 7.*reads 1"),
        (b'{"format": "pix2pix-shards", "version": 1, "splits": {"train": {}}}', "damaged"),
        (b'{"format": "pix2pix-shards", "version": 1, "splits": []}', "damaged"),
        (b'{"format": "pix2pix-shards", "version": 1}', "damaged"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)


def test_a_split_opens_with_its_shards_in_order(shards: Path) -> None:
    names = [shard.name for shard in open_split(shards, "train").shards]
    assert names == ["train-000000.tar", "train-000001.tar"]


def test_a_missing_an_altered_and_an_unknown_thing_is_named(shards: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'val' \(there: train\).*--split val"):
        open_split(shards, "val")
    with (shards / "train-000001.tar").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"train-000001.tar was altered.*make_shards"):
        open_split(shards, "train")
    (shards / "train-000000.tar").unlink()
    with pytest.raises(UserError, match=r"train-000000.tar is missing.*make_shards"):
        open_split(shards, "train")


@pytest.mark.parametrize("kinds", [KINDS, tuple(sorted(KINDS)), KINDS[:2]])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_the_index_says_where_each_member_lies(tmp_path: Path, kinds, form) -> None:
    path = tmp_path / "a.tar"
    keys = ("000012", "000003", "000700")
    contents = write_tar(path, keys, kinds, format=form)
    index = index_shard(path)
    data = path.read_bytes()
    assert index.keys == keys
    assert index.gray.shape == index.color.shape == (3, 2)
    assert index.gray.dtype == index.color.dtype == np.int64
    for kind, places in zip(KINDS, (index.gray, index.color, index.metadata), strict=True):
        for key, (offset, size) in zip(keys, places, strict=True):
            assert data[offset : offset + size] == contents.get(f"{key}.{kind}", b"")


def test_a_shard_by_webdatasets_own_writer_is_indexed(tmp_path: Path) -> None:
    import webdataset  # which imports torch: the others need not wait for it

    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(3):
            picture = b"picture %d" % number
            sample = {"__key__": f"folder.x/{number:06d}", "gray.jpg": picture, "json": {"a": 1}}
            writer.write(sample | {"color.jpg": picture * 100})
    index = index_shard(path)
    assert index.keys == ("folder.x/000000", "folder.x/000001", "folder.x/000002")
    offset, size = index.gray[2]
    assert path.read_bytes()[offset : offset + size] == b"picture 2"


def test_an_empty_shard_has_an_empty_index(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [])
    index = index_shard(tmp_path / "a.tar")
    assert index.keys == ()
    assert index.gray.shape == index.color.shape == (0, 2)


def test_a_shard_cut_short_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, ["000001", "000002"])
    data = path.read_bytes()
    ends = len(data.rstrip(b"\0"))
    for length in {0, 100, 512, 700, ends // 2, ends - 600, ends, -(-ends // 512) * 512}:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"a\.tar is cut short"):
            index_shard(path)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("gray.jpg", "json"), r"a\.tar.* 000001 has no color.jpg"),
        (("color.jpg",), r"a\.tar.* 000001 has no gray.jpg"),
        (("gray.jpg", "color.jpg", "gray.jpg"), r"a\.tar.*has 000001.gray.jpg twice"),
    ],
)
def test_members_that_are_no_pairs_are_named(tmp_path: Path, kinds, message) -> None:
    write_tar(tmp_path / "a.tar", ["000001"], kinds)
    with pytest.raises(UserError, match=message):
        index_shard(tmp_path / "a.tar")


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"no tar at all" * 1000)
    with pytest.raises(UserError, match=r"a\.tar is no plain tar"):
        index_shard(path)
    write_tar(path, ["long" * 50], format=tarfile.GNU_FORMAT)
    with pytest.raises(UserError, match=r"a\.tar is no plain tar"):
        index_shard(path)
    with pytest.raises(UserError, match=r"b\.tar cannot be opened: No such file"):
        index_shard(tmp_path / "b.tar")


def test_indexing_reads_nothing_but_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", [f"{number:06d}" for number in range(10)])
    with tarfile.open(tmp_path / "a.tar") as tar:
        num_members = len(tar.getnames())
    reads, pread = [], os.pread
    monkeypatch.setattr("os.pread", lambda *where: reads.append(where[1]) or pread(*where))
    index_shard(tmp_path / "a.tar")
    assert reads == [512] * (num_members + 1)  # and the block of zeros that ends a tar


def test_publishing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    publish(path, b"first")
    assert path.read_bytes() == b"first"

    def fail(*_: object) -> None:
        raise OSError("pulled out")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="pulled out"):
        publish(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_manifest_and_index_need_no_torch() -> None:
    script = (
        "import sys, json, pix2pix.data.shards, pix2pix.photos.photo\n"
        "print(json.dumps([*sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert "torch" not in json.loads(found.stdout)
