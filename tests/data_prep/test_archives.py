import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from data_prep import archives
from data_prep.archives import TarSource, ZipSource, open_source
from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.photos import FolderSource, Photo, Source, digest_photos, read_photo
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError
from tests.photographs import write_folder
from tests.shard_runs import contents
from tests.tars import END, FORMATS, member, signed, write_huge

NAMES = [
    "a.jpg",
    "a b, c.Gif",
    "sub/z.JPG",
    "sub/sub/ä.webp",
    f"{'long' * 30}/{'name' * 25}.png",  # beyond the 100 bytes of a tar's first format
    f"{'long' * 60}/{'name' * 60}.png",  # beyond the 256 of its second
    ".hidden.jpg",
    ".hidden/a.jpg",
    "__MACOSX/a.jpg",
    "notes.txt",
    "older.zip",
]
NUM_PHOTOS = 6


def data_of(number: int) -> bytes:
    return bytes(range(number, number + 50)) * (20 * number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    for number, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data_of(number))
    return root


def pack_tar(folder: Path, path: Path, kind: int = tarfile.PAX_FORMAT, prefix: str = "") -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        archive.add(folder, arcname=prefix or ".")
    return path


def pack_zip(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder))
    return path


def tar_of(path: Path, **files: bytes) -> Path:
    """A tar of members; in their names, dots are written as `__`."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            add(archive, name.replace("__", "."), data)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def reasons(source: Source) -> dict[str, str | None]:
    """Why each photograph is left out, or None."""
    found = {}
    for photo in source.list_photos():
        try:
            read_photo(source, photo)
            found[photo.name] = None
        except PhotoError as error:
            found[photo.name] = error.reason
    return found


PACKED = {
    "ustar": lambda folder, path: pack_tar(folder, path, tarfile.GNU_FORMAT),
    "pax": pack_tar,
    "stored": lambda folder, path: pack_zip(folder, path, zipfile.ZIP_STORED),
    "deflated": pack_zip,
}


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_an_archive_of_a_folder_is_that_folder(folder: Path, tmp_path: Path, pack) -> None:
    source, unpacked = open_source(pack(folder, tmp_path / "archive")), open_source(folder)
    listed, wanted = source.list_photos(), unpacked.list_photos()
    assert len(wanted) == NUM_PHOTOS
    assert [(p.name, p.size) for p in listed] == [(p.name, p.size) for p in wanted]
    assert digest_photos(listed) == digest_photos(wanted)
    assert [source.read(p) for p in listed] == [unpacked.read(p) for p in wanted]


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_shards_of_an_archive_are_those_of_the_folder(tmp_path: Path, pack) -> None:
    folder = write_folder(tmp_path / "photos", 7)
    for name, photos in (("one", folder), ("two", pack(folder, tmp_path / "archive"))):
        options = MakeShardsOptions(
            photos=photos,
            out=tmp_path / name,
            split="train",
            short_side=48,
            samples_per_shard=3,
            num_workers=2 if name == "two" else 1,
        )
        assert make_shards(options) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "archive", "one", "two"}


def test_a_folder_around_everything_stays_in_the_names(folder: Path, tmp_path: Path) -> None:
    source = TarSource(pack_tar(folder, tmp_path / "x.tar", prefix="train2017"))
    assert "train2017/a.jpg" in [photo.name for photo in source.list_photos()]


def test_a_copy_of_a_source_opens_its_own_file(folder: Path, tmp_path: Path) -> None:
    for source in (
        TarSource(pack_tar(folder, tmp_path / "x.tar")),
        ZipSource(pack_zip(folder, tmp_path / "x.zip")),
    ):
        photo = source.list_photos()[-1]
        data = source.read(photo)
        copy = pickle.loads(pickle.dumps(source))
        os.replace(source.path, tmp_path / "moved")
        assert source.read(photo) == data  # as it was when it was listed
        with pytest.raises(UserError, match=r"x\.\w+ cannot be opened: No such file"):
            read_photo(copy, photo)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_elsewhere_are_only_names(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    names = ["../up.jpg", "../../etc/x.jpg", "/root.jpg", "./here//b.jpg"]
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name in names:
                add(archive, name, name.encode())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, name)
    source = open_source(path)
    listed = source.list_photos()
    assert [p.name for p in listed] == ["../../etc/x.jpg", "../up.jpg", "here/b.jpg", "root.jpg"]
    assert [source.read(photo).decode() for photo in listed] == [
        "../../etc/x.jpg",
        "../up.jpg",
        "./here//b.jpg",
        "/root.jpg",
    ]
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_are_no_utf_8_are_those_of_a_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "tar":
        tar_of(path, caf_jpg=b"", **{os.fsdecode(b"caf\xe9.jpg"): b"1", "café.jpg": b"22"})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("caf@.jpg", b"1")
            archive.writestr("café.jpg", b"22")  # marked as UTF-8
        path.write_bytes(path.read_bytes().replace(b"caf@", b"caf\xe9"))
    listed = open_source(path).list_photos()
    assert [(os.fsencode(photo.name), photo.size) for photo in listed] == [
        (b"caf\xc3\xa9.jpg", 2),
        (b"caf\xe9.jpg", 1),
    ]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_of_members_with_one_name_the_last_counts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name, data in (("a.jpg", b"old"), ("b.jpg", b"b"), ("./a.jpg", b"newer")):
                add(archive, name, data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.jpg", b"old")
            archive.writestr("b.jpg", b"b")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("a.jpg", b"newer")
    source = open_source(path)
    listed = source.list_photos()
    assert [(photo.name, photo.reject) for photo in listed] == [
        ("a.jpg", "replaced"),
        ("a.jpg", None),
        ("b.jpg", None),
    ]
    assert source.read(listed[1]) == b"newer"


def test_links_in_a_tar_are_followed_where_the_file_is_known(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "sub/a.jpg", b"data")
        add(archive, "b.jpg", type=tarfile.LNKTYPE, linkname="./sub/a.jpg")
        add(archive, "c.jpg", type=tarfile.LNKTYPE, linkname="nowhere.jpg")
        add(archive, "cache/1f", b"hashed")
        add(archive, "cached.jpg", type=tarfile.LNKTYPE, linkname="cache/1f")
        add(archive, "d.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "e.jpg", type=tarfile.FIFOTYPE)
        add(archive, "f.jpg", type=tarfile.DIRTYPE)
        add(archive, "f.jpg/g.jpg", b"more")
    source = TarSource(tmp_path / "x.tar")
    assert reasons(source) == {
        "b.jpg": None,
        "c.jpg": "link",
        "cached.jpg": None,
        "d.jpg": "link",
        "e.jpg": "not_a_file",
        "f.jpg/g.jpg": None,
        "sub/a.jpg": None,
    }
    assert source.read(source.list_photos()[0]) == b"data"


def zip_with(path: Path, changes: dict[int, bytes], signature: bytes, data: bytes) -> ZipSource:
    """A zip of one deflated member, with bytes written over its record in one of the headers."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", data)
    whole = bytearray(path.read_bytes())
    start = whole.rindex(signature)
    for offset, value in changes.items():
        whole[start + offset : start + offset + len(value)] = value
    path.write_bytes(whole)
    return ZipSource(path)


DIRECTORY, LOCAL, ZIP_END = b"PK\1\2", b"PK\3\4", b"PK\5\6"


@pytest.mark.parametrize(
    ("changes", "signature", "reason"),
    [
        ({}, LOCAL, None),
        ({8: b"\1"}, DIRECTORY, "encrypted"),
        ({10: b"\x09"}, DIRECTORY, "unsupported_member"),
        ({40: struct.pack("<H", 0o120777)}, DIRECTORY, "link"),
        ({16: b"\0\0\0\0"}, DIRECTORY, "damaged"),  # checksum
        ({20: b"\xff\xff\xff\x7f"}, DIRECTORY, "damaged"),  # claims 2 GB of compressed bytes
        ({24: b"\xff\xff\xff\x7f"}, DIRECTORY, "too_many_bytes"),  # claims 2 GB
        ({24: b"\1\0\0\0"}, DIRECTORY, "damaged"),  # claims a byte
        ({42: b"\xff\xff\xff\x7f"}, DIRECTORY, "damaged"),  # lies far behind the end
        ({16: b"\xff"}, ZIP_END, "damaged"),  # where the directory is: members lie before the start
        ({0: b"XX"}, LOCAL, "damaged"),
        ({35: b"\xff" * 8}, LOCAL, "damaged"),  # the compressed bytes
        ({26: b"\xff\xff"}, LOCAL, "damaged"),  # a name that ends beyond the archive
    ],
)
def test_a_bad_member_of_a_zip_is_left_out_with_its_reason(
    tmp_path: Path, changes: dict[int, bytes], signature: bytes, reason: str | None
) -> None:
    source = zip_with(tmp_path / "x.zip", changes, signature, b"some data" * 20)
    assert reasons(source) == {"a.jpg": reason}


def test_a_changed_byte_of_a_stored_member_is_noticed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", b"photograph")
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(whole.replace(b"photograph", b"phonograph"))
    assert reasons(ZipSource(tmp_path / "x.zip")) == {"a.jpg": "damaged"}


def test_other_compressions_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", b"x" * 99, zipfile.ZIP_LZMA)
        archive.writestr("b.jpg", b"x" * 99, zipfile.ZIP_BZIP2)
        archive.writestr("c.jpg", b"x" * 99, zipfile.ZIP_STORED)
    unsupported = "unsupported_member"
    assert reasons(ZipSource(tmp_path / "x.zip")) == {
        "a.jpg": unsupported,
        "b.jpg": unsupported,
        "c.jpg": None,
    }


def test_a_bomb_in_a_zip_takes_no_memory(tmp_path: Path) -> None:
    size = 100_000_000
    claim = {24: struct.pack("<I", 200_000)}
    source = zip_with(tmp_path / "x.zip", claim, DIRECTORY, bytes(size))
    assert source.list_photos()[0].reject is None
    tracemalloc.start()
    try:
        assert reasons(source) == {"a.jpg": "damaged"}
        assert tracemalloc.get_traced_memory()[1] < size // 100
    finally:
        tracemalloc.stop()


def test_large_zips_have_64_bit_fields(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = pack_zip(folder, tmp_path / "x.zip")
    assert b"PK\6\6" in path.read_bytes()  # the record at the end that zip64 has
    assert set(reasons(ZipSource(path)).values()) == {None}


def test_a_zip_behind_a_program_opens(folder: Path, tmp_path: Path) -> None:
    path = pack_zip(folder, tmp_path / "x.zip")
    path.write_bytes(b"#!/bin/sh\nexit 1\n" * 40 + path.read_bytes())
    assert set(reasons(open_source(path)).values()) == {None}


def test_a_zip_at_the_end_of_a_tar_does_not_make_it_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("inner.jpg", b"x")
    path = tmp_path / "x.tar"
    tar_of(path, a__jpg=b"1", z__zip=(tmp_path / "in.zip").read_bytes())
    assert zipfile.is_zipfile(path), "this test needs one that could be both"
    assert reasons(open_source(path)) == {"a.jpg": None}


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_refused_with_the_cure(folder: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"photos.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:
        archive.add(folder, ".")
    program = {"gz": "gunzip -k", "bz2": "bunzip2 -k", "xz": "unxz -k"}[kind]
    with pytest.raises(UserError, match=rf"compressed with .*{program} photos.tar.{kind}"):
        open_source(path)


def test_what_is_no_whole_archive_is_refused(folder: Path, tmp_path: Path) -> None:
    whole_zip = pack_zip(folder, tmp_path / "x.zip").read_bytes()
    path = tmp_path / "photos"
    for data, message in [
        (b"", "neither a folder nor a zip nor a tar"),
        (bytes(10240), "neither a folder nor a zip nor a tar"),
        (b"\xff\xd8\xff\xe0 a photograph, no archive", "neither a folder nor a zip nor a tar"),
        (whole_zip[: len(whole_zip) // 2], "a zip that is cut short; copy it again"),
        (whole_zip[:-50], "a zip that is cut short"),
        (whole_zip.replace(DIRECTORY, b"PK\7\7"), "is a damaged zip"),
    ]:
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            open_source(path).list_photos()
    with pytest.raises(UserError, match="there is no such folder, zip or tar"):
        open_source(tmp_path / "absent.zip").list_photos()


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_an_archive_without_photographs_is_refused(tmp_path: Path, pack) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/inner.zip").write_bytes(b"PK")
    path = pack(tmp_path / "folder", tmp_path / "x")
    with pytest.raises(UserError, match=r"no photographs in it.*an archive in it is not opened"):
        open_source(path).list_photos()


def test_short_reads_are_gone_on_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TarSource(pack_tar(folder, tmp_path / "x.tar"))
    listed = source.list_photos()
    wanted = [FolderSource(folder).read(photo) for photo in listed]
    pread = os.pread
    monkeypatch.setattr(archives.os, "pread", lambda fd, size, at: pread(fd, min(size, 77), at))
    assert [source.read(photo) for photo in listed] == wanted
    with pytest.raises(PhotoError, match="ends before its member does"):
        source.read(Photo("a.jpg", 10, (os.path.getsize(source.path) - 5,)))


@pytest.mark.parametrize("pack", [pack_tar, pack_zip])
def test_damage_anywhere_is_told(tmp_path: Path, pack) -> None:
    """Each third byte is another one: an error, or a reason, but never a foreign exception."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(name.encode() * 20)
    path = pack(folder, tmp_path / "x")
    whole = path.read_bytes()[:5000]  # of the tar, no need to alter each zero that ends it
    outcomes = set()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            found = reasons(open_source(path))
        except UserError:
            outcomes.add("refused")
        else:
            outcomes |= set(found.values())
    assert "refused" in outcomes
    assert outcomes - {"refused"} <= {
        None,
        "damaged",
        "encrypted",
        "link",
        "too_many_bytes",
        "unsupported_member",
    }


def listed(tmp_path: Path, data: bytes) -> list[tuple[str, int]]:
    """Names and sizes of the photographs of a tar, which can all be read."""
    (tmp_path / "x.tar").write_bytes(data)
    source = TarSource(tmp_path / "x.tar")
    photos = source.list_photos()
    assert [len(source.read(photo)) for photo in photos] == [photo.size for photo in photos]
    return [(photo.name, photo.size) for photo in photos]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_links_in_a_tar_may_have_any_length(tmp_path: Path, kind: int) -> None:
    long = "n" * 5000
    data = member(f"{long}.jpg", b"1", kind)
    data += member("b.jpg", kind=kind, type=tarfile.LNKTYPE, linkname=f"{long}.jpg")
    data += member("c.jpg", b"333")
    assert listed(tmp_path, data + END) == [("b.jpg", 1), ("c.jpg", 3), (f"{long}.jpg", 1)]


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_members_beyond_8_gib_are_passed_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.tar"
    size = write_huge(path, kind)
    source = TarSource(path)
    assert [(p.name, p.size) for p in source.list_photos()] == [
        ("large.jpg", size),
        ("small.jpg", 2),
    ]
    assert reasons(source) == {"large.jpg": "too_many_bytes", "small.jpg": None}


def test_tars_joined_end_to_end_are_read_to_the_end(tmp_path: Path) -> None:
    data = member("a.jpg", b"1") + END * 10 + member("b.jpg", b"22") + END
    assert listed(tmp_path, data) == [("a.jpg", 1), ("b.jpg", 2)]


def test_what_holds_for_all_members_is_no_photograph(tmp_path: Path) -> None:
    data = member("g.jpg", b"18 comment=abcdef\n", type=b"g") + member("a.jpg", b"1")
    assert listed(tmp_path, data + END) == [("a.jpg", 1)]


def test_what_was_said_of_a_member_does_not_hold_for_the_next(tmp_path: Path) -> None:
    data = member("x", b"14 path=z.jpg\n", type=b"x") + member("a.jpg") + member("b.jpg")
    assert listed(tmp_path, data + END) == [("b.jpg", 0), ("z.jpg", 0)]


def test_folders_of_the_oldest_tars_are_folders(tmp_path: Path) -> None:
    data = member("folder.jpg/", type=b"\0") + member("a.jpg")
    assert listed(tmp_path, data + END) == [("a.jpg", 0)]


def test_sparse_members_are_left_out(tmp_path: Path) -> None:
    gnu = bytearray(member("a.jpg", b"data", type=b"S"))
    gnu[482] = 1  # the list of holes goes on
    holes = bytearray(512)
    holes[504] = 1
    gnu[:512] = signed(bytes(gnu[:512]))
    gnu[512:512] = bytes(holes) + bytes(512)
    records = (
        b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n" + b"25 GNU.sparse.name=b.jpg\n"
    )
    holes_of_1_0 = b"0\n".ljust(512, b"\0")
    pax = member("x", records, type=b"x") + member("GNUSparseFile.0/b.jpg", holes_of_1_0 + b"data")
    (tmp_path / "x.tar").write_bytes(bytes(gnu) + pax + member("c.jpg", b"whole") + END)
    assert reasons(TarSource(tmp_path / "x.tar")) == {
        "a.jpg": "unsupported_member",
        "b.jpg": "unsupported_member",
        "c.jpg": None,
    }


TWO = member("a.jpg", b"1" * 700) + member("b.jpg", b"2")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TWO, "the end is missing"),
        (TWO[: 512 + 1024], "the end is missing"),
        (TWO[:1000], "unexpected end of data"),
        (TWO[: 512 * 3 + 100], "no header where one should be, at byte 1,536"),
        (TWO[: 512 * 3] + b"?" * 512 + END, "no header where one should be, at byte 1,536"),
        (TWO[: 512 * 3] + b"?" * 512 + TWO + END, "no header where one should be, at byte 1,536"),
        (TWO + b"junk" * 128 + END, "no header where one should be, at byte 2,560"),
        (TWO + END + b"junk" * 128 + END, "no header where one should be, at byte 3,584"),
        (member("x", b"0 path=a\n", type=b"x") + TWO + END, ""),
        (member("x", b"11 size=-1\n", type=b"x") + TWO + END, "a.jpg has a size of -1"),
        (member("x", b"10 size=x\n", type=b"x") + TWO + END, "no header where one should be"),
        (signed(TWO[:124] + b"not a number" + TWO[136:512]) + END, ""),
        (signed(TWO[:124] + b"\xff" * 12 + TWO[136:512]) + END, "a.jpg has a size of -1"),
        (
            signed(TWO[:124] + b"\xff" * 10 + b"\0\0" + TWO[136:156] + b"L" + TWO[157:512])
            + TWO
            + END,
            "",
        ),
        (signed(TWO[:124] + b"\x80" + b"\xff" * 11 + TWO[136:512]) + END, ""),
    ],
)
def test_a_tar_that_cannot_be_read_on_is_named_as_damaged(
    tmp_path: Path, data: bytes, message: str
) -> None:
    with pytest.raises(UserError, match=f"is a damaged tar: .*{message}.*copy or make it again"):
        listed(tmp_path, data)


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_a_damaged_header_between_members_loses_none_silently(tmp_path: Path, kind: int) -> None:
    data = b"".join(member(f"{number}.jpg", b"x" * 600, kind) for number in range(10))
    assert len(listed(tmp_path, data + END)) == 10
    for header in range(1536, len(data), 1536):
        broken = data[:header] + b"\xee" + data[header + 1 :]
        with pytest.raises(UserError, match=f"damaged tar: .*byte {header:,}"):
            listed(tmp_path, broken + END)
