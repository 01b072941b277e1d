import json
from pathlib import Path

import pytest

from data_prep.duplicates import reject_duplicates
from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.photos import FolderSource, Photo
from pix2pix.errors import UserError
from tests.photographs import colorful, encoded, write_folder
from tests.shard_runs import contents

FILES = {
    "a/1.jpg": b"same",
    "a/2.jpg": b"else",  # of the same size
    "b/1.jpg": b"same",
    "c.jpg": b"same",
    "d.jpg": b"unlike",
    "e.jpg": b"",
    "f.jpg": b"",
}


class CountingSource(FolderSource):
    """A folder that tells what was read of it."""

    reads: list[str]

    def read(self, photo: Photo) -> bytes:
        self.reads.append(photo.name)
        return super().read(photo)


@pytest.fixture
def source(tmp_path: Path) -> CountingSource:
    for name, data in FILES.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    CountingSource.reads = []
    return CountingSource(tmp_path / "photos")


def copies(source: FolderSource, out: Path, num_threads: int = 1) -> list[str]:
    marked = reject_duplicates(source, source.list_photos(), out, num_threads)
    assert [photo.name for photo in marked] == [photo.name for photo in source.list_photos()]
    return [photo.name for photo in marked if photo.reject == "duplicate"]


@pytest.mark.parametrize("num_threads", [1, 4])
def test_the_first_in_path_order_is_kept(
    source: CountingSource, tmp_path: Path, num_threads: int
) -> None:
    assert copies(source, tmp_path, num_threads) == ["b/1.jpg", "c.jpg"]


def test_only_files_that_share_their_size_are_read(source: CountingSource, tmp_path: Path) -> None:
    copies(source, tmp_path)
    assert sorted(source.reads) == ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c.jpg"]


def test_what_was_found_is_not_looked_for_again(source: CountingSource, tmp_path: Path) -> None:
    found = copies(source, tmp_path / "out")
    source.reads.clear()
    assert copies(source, tmp_path / "out") == found
    assert source.reads == []
    (source.root / "g.jpg").write_bytes(b"same")
    assert copies(source, tmp_path / "out") == [*found, "g.jpg"]


@pytest.mark.parametrize("damage", ["", "[1, 2", "{}", "[99]", '["b/1.jpg"]', "[-1]"])
def test_a_damaged_note_is_not_believed(
    source: CountingSource, tmp_path: Path, damage: str
) -> None:
    found = copies(source, tmp_path / "out")
    (note,) = (tmp_path / "out").glob(".duplicates-*.json")
    note.write_text(damage)
    assert copies(source, tmp_path / "out") == found
    assert json.loads(note.read_text()) == [2, 3]


def test_what_is_left_out_for_another_reason_is_nobodys_original(
    source: CountingSource, tmp_path: Path
) -> None:
    copies(source, tmp_path)  # what was found for other licenses does not count
    photos = source.list_photos()
    photos[0] = Photo("a/1.jpg", 4, reject="license")
    marked = reject_duplicates(source, photos, tmp_path, 1)
    assert [(photo.name, photo.reject) for photo in marked if photo.reject] == [
        ("a/1.jpg", "license"),
        ("c.jpg", "duplicate"),
    ]


def test_a_photograph_that_cannot_be_read_is_no_copy(
    source: CountingSource, tmp_path: Path
) -> None:
    photos = source.list_photos()
    (source.root / "a/2.jpg").unlink()
    (source.root / "b/1.jpg").unlink()
    marked = reject_duplicates(source, photos, tmp_path, 1)
    assert [photo.name for photo in marked if photo.reject] == ["c.jpg"]


def test_a_place_that_cannot_be_written_to_is_named(source: CountingSource, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write to"):
        copies(source, tmp_path / "photos/d.jpg")


def test_no_copy_of_a_training_photograph_is_in_val(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", 12)
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))):
        (photos / f"copy {number}.jpg").write_bytes(path.read_bytes())
    (photos / "other.jpg").write_bytes(encoded(colorful(seed=99)))
    for num_workers in (1, 2):
        options = MakeShardsOptions(
            photos=photos,
            out=tmp_path / f"out{num_workers}",
            split="train",
            short_side=48,
            samples_per_shard=4,
            val_fraction=0.4,
            num_workers=num_workers,
        )
        assert make_shards(options) == 0
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")
    rejects = [json.loads(line) for line in (tmp_path / "out1/rejected.jsonl").open()]
    assert {reject["reason"] for reject in rejects} == {"duplicate"}
    assert {reject["split"] for reject in rejects} == {"train", "val"}
    # "copy" comes before "photo" and "sub": these are the copies that are left out.
    assert sorted(reject["source"] for reject in rejects) == sorted(
        path.relative_to(photos).as_posix()
        for path in photos.rglob("*.jpg")
        if path.name.startswith("photo")
    )
