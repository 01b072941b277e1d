import io
import os
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from pix2pix.data.index import (
    PAIRS,
    ShardIndex,
    as_keys,
    as_places,
    index_path,
    index_shard,
    read_index,
    write_index,
)
from pix2pix.errors import UserError

KINDS = ("gray.jpg", "color.jpg", "json")
PICTURES = ShardIndex(
    "f" * 64,
    as_keys([b"a/long/name" * 30, "ü".encode(), b"\xff"]),
    {"picture": as_places([(512, 7), (2**40, 8), (3, 4)]), "metadata": as_places([(0, 0)] * 3)},
)


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


@pytest.mark.parametrize("kinds", [KINDS, tuple(sorted(KINDS)), KINDS[:2]])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_the_index_says_where_each_member_lies(tmp_path: Path, kinds, form) -> None:
    path = tmp_path / "a.tar"
    keys = ("000012", "000003", "000700")
    contents = write_tar(path, keys, kinds, format=form)
    index = index_shard(path)
    data = path.read_bytes()
    assert index.names == keys
    for kind, member in zip(KINDS, PAIRS, strict=True):
        assert index.places[member].shape == (3, 2)
        assert index.places[member].dtype == np.int64
        for number, key in enumerate(keys):
            offset, size = index.place(member, number)
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
    assert index.names == ("folder.x/000000", "folder.x/000001", "folder.x/000002")
    offset, size = index.place("gray", 2)
    assert path.read_bytes()[offset : offset + size] == b"picture 2"


def test_an_empty_shard_has_an_empty_index(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [])
    index = index_shard(tmp_path / "a.tar")
    assert index.names == ()
    assert all(places.shape == (0, 2) for places in index.places.values())


def test_a_shard_cut_short_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, ["000001", "000002"])
    data = path.read_bytes()
    ends = len(data.rstrip(b"\0"))
    for length in {0, 100, 512, 700, ends // 2, ends - 600, ends, -(-ends // 512) * 512}:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"a\.tar is damaged, .*cut short"):
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
    with pytest.raises(UserError, match=r"a\.tar is .*no plain tar"):
        index_shard(path)
    with pytest.raises(UserError, match=r"b\.tar cannot be opened: No such file"):
        index_shard(tmp_path / "b.tar")


def test_indexing_reads_nothing_but_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", [f"{number:06d}" for number in range(10)])
    reads, pread = [], os.pread
    monkeypatch.setattr("os.pread", lambda *where: reads.append(where[1]) or pread(*where))
    index_shard(tmp_path / "a.tar")
    end = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    zeros = ((tmp_path / "a.tar").stat().st_size - len(end)) // 512  # blocks that end a tar
    assert set(reads) == {512}
    assert len(reads) <= 10 * len(KINDS) + zeros


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_are_indexed(tmp_path: Path, form) -> None:
    keys = ("folder/" * 60 + "a", "b" * 300, "c")
    contents = write_tar(tmp_path / "a.tar", keys, format=form)
    index = index_shard(tmp_path / "a.tar")
    assert index.names == keys
    offset, size = index.place("color", 1)
    found = (tmp_path / "a.tar").read_bytes()[offset : offset + size]
    assert found == contents[f"{keys[1]}.color.jpg"]


def test_an_index_reads_as_it_was_written(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", ["000001", "000002"])
    empty = ShardIndex("", as_keys([]), {name: as_places([]) for name in PAIRS})
    for index in (PICTURES, index_shard(tmp_path / "a.tar", "a" * 64), empty):
        digest = write_index(tmp_path / "a.index.npz", index)
        assert digest == sha256((tmp_path / "a.index.npz").read_bytes()).hexdigest()
        found = read_index(tmp_path / "a.index.npz")
        assert (found.shard, found.names) == (index.shard, index.names)
        assert found.places.keys() == index.places.keys()
        for member, places in index.places.items():
            assert np.array_equal(found.places[member], places)


def test_indexes_that_are_kept_hold_no_descriptor_each(tmp_path: Path) -> None:
    """A process may have 1,024 of them on most systems, and a set has more shards."""
    index = ShardIndex("0" * 64, as_keys([b"a"]), {"gray": as_places([(0, 1)])})
    write_index(tmp_path / "x.index.npz", index)
    before = len(os.listdir("/proc/self/fd"))
    kept = [read_index(tmp_path / "x.index.npz") for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert {one.key(0) for one in kept} == {"a"}


def test_an_index_has_the_same_bytes_whenever_it_is_written(tmp_path: Path, monkeypatch) -> None:
    first = write_index(tmp_path / "a.index.npz", PICTURES)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert write_index(tmp_path / "b.index.npz", PICTURES) == first
    with zipfile.ZipFile(tmp_path / "b.index.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_numpy_reads_an_index(tmp_path: Path) -> None:
    write_index(tmp_path / "a.index.npz", PICTURES)
    with np.load(tmp_path / "a.index.npz") as arrays:
        assert arrays["picture"].tolist() == PICTURES.places["picture"].tolist()
        assert arrays["keys"].tolist() == PICTURES.keys.tolist()


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    path = index_path(tmp_path, "train-000000.tar")
    assert path.name == "train-000000.index.npz"
    with pytest.raises(FileNotFoundError):
        read_index(path)
    write_index(path, PICTURES)
    data = path.read_bytes()
    for broken in (b"", b"no index", data[:300], data.replace(b"keys.npy", b"kexs.npy")):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"train-000000\.index\.npz is damaged"):
            read_index(path)
