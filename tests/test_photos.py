import os
import sys
from pathlib import Path

import pytest

from data_prep.photos import (
    COLOR_PHOTOS,
    GRAY_PHOTOS,
    FolderSource,
    PackagedPhoto,
    Photo,
    digest_photos,
)
from pix2pix.errors import UserError
from pix2pix.photo import chroma_spread, open_photo


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


def test_packaged_photographs_are_colour_and_gray_as_listed() -> None:
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
        with pytest.raises(UserError, match=r"pip install 'pix2pix\[demo\]'"):
            _ = absent.path
