import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from pix2pix.data.shards import (
    Manifest,
    Shard,
    Split,
    identity_of,
    open_split,
    read_manifest,
    write_manifest,
)
from pix2pix.errors import UserError
from pix2pix.system.durable import publish
from tests.data.test_index import write_tar


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


def pictures_of(*urls: str | None) -> Split:
    """A split of pictures that others made, a shard at each URL."""
    shards = tuple(
        Shard(f"{number}.tar", 3, 9, "a" * 64, url, "b" * 64) for number, url in enumerate(urls)
    )
    return Split("train", shards, {"min_short_side": 256}, {"near_gray": 1}, "pictures")


def test_a_manifest_of_shards_elsewhere_reads_as_it_was_written(tmp_path: Path) -> None:
    split = pictures_of("https://host/a%20b.tar", "../others/a:b.tar", "s3://bucket/a.tar", None)
    write_manifest(tmp_path, Manifest({"train": split}))
    assert json.loads((tmp_path / "manifest.json").read_bytes())["version"] == 2
    assert read_manifest(tmp_path).splits["train"] == split


def test_prepared_shards_have_the_manifest_they_always_had(shards: Path) -> None:
    text = (shards / "manifest.json").read_text()
    assert json.loads(text)["version"] == 1
    assert "url" not in text
    assert "index" not in text
    assert "kind" not in text


def test_the_digest_covers_the_index_but_not_the_place() -> None:
    here, there = pictures_of("a.tar"), pictures_of("https://host/b.tar")
    assert here.digest == there.digest
    other = replace(here.shards[0], index_sha256="c" * 64)
    assert replace(here, shards=(other,)).digest != here.digest


def test_the_digest_of_prepared_shards_is_what_runs_have_in_their_config() -> None:
    split = split_of(Shard("a.tar", 3, 9, "aa"), Shard("b.tar", 2, 9, "bb"))
    assert split.digest == sha256(b"aa 3\nbb 2\n").hexdigest()


def test_pictures_are_read_at_the_short_side_that_preparation_gives_them() -> None:
    assert pictures_of("a.tar").at(256).short_side == 286
    assert pictures_of("a.tar").at(128).short_side == 143
    assert split_of().at(128).short_side == 286


def test_several_data_sets_have_an_identity_of_all(shards: Path) -> None:
    one, two = open_split(shards, "train"), pictures_of("a.tar")
    assert identity_of([one]) == identity_of([one], [1]) == one.digest
    assert identity_of([one, two]) == identity_of([one, two], [1, 1])
    assert identity_of([one, two]).startswith(one.digest)
    identities = [identity_of([one, two]), identity_of([two, one]), identity_of([one], [2])]
    assert len({*identities, identity_of([one, two], [1, 3]), one.digest}) == 5


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("pipe:touch /tmp/x", "'pipe:' is neither"),
        ("file:///etc/passwd", "neither"),
        ("ftp://host/a.tar", "neither"),
        ("//host/a.tar", "neither"),
        ("https:a.tar", "neither"),
        ("/etc/passwd", "absolute path"),
        ("https://me:secret@host/a.tar", "URL of https://host/a.tar carries a user"),
        ("https://host/a.tar?sig=secret", "URL of https://host/a.tar carries a query"),
        ("https://host/a.tar#secret", "carries a query"),
    ],
)
def test_a_manifest_names_nothing_that_must_not_be_opened(tmp_path: Path, url, reason) -> None:
    write_manifest(tmp_path, Manifest({"train": pictures_of(url)}))
    with pytest.raises(UserError, match=reason) as caught:
        read_manifest(tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"name": "../a.tar"}, {"name": ".hidden"}, {"sha256": "../x"}, {"num_samples": -1}, {"x": 1}],
)
def test_a_manifest_with_a_shard_that_cannot_be_is_damaged(shards: Path, change) -> None:
    path = shards / "manifest.json"
    content = json.loads(path.read_bytes())
    content["splits"]["train"]["shards"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="damaged"):
        read_manifest(shards)


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
        (b'{"format": "pix2pix-shards", "version": 7, "splits": {}}', "version 7.*reads 1 and 2"),
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
