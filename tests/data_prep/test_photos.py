import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from data_prep.photos import (
    COLOR_PHOTOS,
    GRAY_PHOTOS,
    MAX_BYTES,
    FolderSource,
    PackagedPhoto,
    Photo,
    digest_photos,
    read_photo,
)
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError, chroma_spread, open_photo


def write(root: Path, *names: str | bytes) -> FolderSource:
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x" * number)
    return FolderSource(root)


def names_of(source: FolderSource) -> list[str]:
    return [photo.name for photo in source.list_photos()]


def test_photographs_of_all_folders_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    source = write(
        tmp_path, "b.jpg", "a/z.JPG", "a.png", "Z.tiff", "ä.webp", "a b, c.Gif", "a/b/c.bmp"
    )
    assert names_of(source) == [
        "Z.tiff",
        "a b, c.Gif",
        "a.png",
        "a/b/c.bmp",
        "a/z.JPG",
        "b.jpg",
        "ä.webp",
    ]
    assert [photo.size for photo in source.list_photos()] == [3, 5, 2, 6, 1, 0, 4]


def test_other_and_hidden_files_are_none(tmp_path: Path) -> None:
    source = write(tmp_path, "a.jpg", "b.txt", "jpg", "c.jpg.part", "._a.jpg", "Thumbs.db")
    assert names_of(source) == ["a.jpg"]


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    source = write(tmp_path, ".git/a.jpg", "b/.cache/c.jpg", "__MACOSX/d.jpg", "e/f.jpg")
    assert names_of(source) == ["e/f.jpg"]


def test_pipes_and_sockets_are_not_opened(tmp_path: Path) -> None:
    source = write(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    os.mknod(tmp_path / "c.jpg", stat.S_IFSOCK | 0o600)
    (tmp_path / "d.jpg").symlink_to("b.jpg")
    (tmp_path / "e.jpg").symlink_to("/dev/zero")
    listed = source.list_photos()
    rejects = [(photo.name, photo.reject) for photo in listed]
    assert rejects == [("a.jpg", None), *((f"{name}.jpg", "not_a_file") for name in "bcde")]
    for photo in listed[1:]:
        with pytest.raises(PhotoError) as caught:
            read_photo(source, photo)
        assert caught.value.reason == "not_a_file"


def test_a_file_is_read_as_far_as_it_was_listed(tmp_path: Path) -> None:
    source = write(tmp_path, "a.jpg", "b.jpg")
    photo = source.list_photos()[1]
    (tmp_path / "b.jpg").write_bytes(bytes(1000))
    assert source.read(photo) == bytes(1)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    source = write(tmp_path, "a.jpg")
    os.truncate(tmp_path / "a.jpg", MAX_BYTES + 1)  # a hole: takes no space
    with pytest.raises(PhotoError, match="536,870,913 bytes; at most") as caught:
        read_photo(source, source.list_photos()[0])
    assert caught.value.reason == "too_many_bytes"


class FailingSource:
    """One photograph, whose first reads fail."""

    def __init__(self, num_failures: int, number: int) -> None:
        self.num_failures, self.number = num_failures, number

    def list_photos(self) -> list[Photo]:
        return [Photo("a.jpg", 4)]

    def read(self, photo: Photo) -> bytes:
        self.num_failures -= 1
        if self.num_failures >= 0:
            raise OSError(self.number, os.strerror(self.number), photo.name)
        return b"data"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, while they pass at once."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
def test_a_fault_that_passes_loses_no_photograph(pauses: list[float], number: int) -> None:
    assert read_photo(FailingSource(3, number), Photo("a.jpg", 4)) == b"data"
    assert pauses == [0.1, 1.0, 5.0]


def test_a_fault_that_lasts_stops_the_run(pauses: list[float]) -> None:
    with pytest.raises(UserError, match=r"reading a.jpg failed 4 times: .*output error; when"):
        read_photo(FailingSource(4, errno.EIO), Photo("a.jpg", 4))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ELOOP])
def test_a_fault_of_the_file_is_its_reason_at_once(pauses: list[float], number: int) -> None:
    with pytest.raises(PhotoError) as caught:
        read_photo(FailingSource(1, number), Photo("a.jpg", 4))
    assert (caught.value.reason, pauses) == ("unreadable", [])


def test_names_that_are_no_utf_8_survive(tmp_path: Path) -> None:
    source = write(tmp_path, b"caf\xe9.jpg", b"caf\xc3\xa9.jpg")
    photos = source.list_photos()
    assert [os.fsencode(photo.name) for photo in photos] == [b"caf\xc3\xa9.jpg", b"caf\xe9.jpg"]
    assert [source.read(photo) for photo in photos] == [b"x", b""]


def test_loops_of_links_end_and_links_are_followed(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", "a/b/c.jpg")
    write(tmp_path / "elsewhere", "d.jpg")
    (tmp_path / "photos/a/b/up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/a/self").symlink_to(".")
    (tmp_path / "photos/more").symlink_to(tmp_path / "elsewhere")
    assert names_of(source) == ["a/b/c.jpg", "more/d.jpg"]


def test_a_link_to_nothing_is_listed_so_that_it_is_counted(tmp_path: Path) -> None:
    source = write(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("gone.jpg")
    assert source.list_photos()[1] == Photo("b.jpg", 0)
    with pytest.raises(OSError, match="No such file"):
        source.read(Photo("b.jpg", 0))


def test_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no photographs in it"):
        write(tmp_path, "a.txt").list_photos()
    with pytest.raises(UserError, match="there is no such folder"):
        FolderSource(tmp_path / "absent").list_photos()
    with pytest.raises(UserError, match="there is no such folder"):
        FolderSource(tmp_path / "a.txt").list_photos()


def test_a_folder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)  # root, as some run tests, is refused nothing
    with pytest.raises(UserError, match="locked cannot be listed: Permission denied"):
        source.list_photos()


def test_the_digest_is_of_names_and_sizes() -> None:
    photos = [Photo("a.jpg", 1), Photo("b.jpg", 2)]
    assert digest_photos(photos) == digest_photos(list(photos))
    others = [
        [Photo("a.jpg", 1), Photo("b.jpg", 3)],
        [Photo("a.jpg", 1), Photo("c.jpg", 2)],
        [Photo("a.jpg", 1)],
    ]
    assert len({digest_photos(each) for each in [photos, *others]}) == 4


def test_packaged_photographs_are_color_and_gray_as_listed() -> None:
    for packaged in COLOR_PHOTOS:
        photo = open_photo(packaged.path)
        assert min(photo.size) >= 286, packaged.name
        assert chroma_spread(photo) > 10, packaged.name
    for packaged in GRAY_PHOTOS:
        assert open_photo(packaged.path).mode == "L", packaged.name
    assert all(packaged.credit for packaged in COLOR_PHOTOS + GRAY_PHOTOS)


def test_packaged_photographs_are_found_without_importing_their_package() -> None:
    imported = {name for name in ("skimage", "sklearn") if name in sys.modules}
    assert [packaged.path for packaged in COLOR_PHOTOS]
    assert {name for name in ("skimage", "sklearn") if name in sys.modules} == imported


def test_a_missing_package_is_named_with_the_cure() -> None:
    for package in ("package_that_nobody_has", "numpy"):
        absent = PackagedPhoto("cat", package, "data/cat.png", "CC0")
        with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
            _ = absent.path
