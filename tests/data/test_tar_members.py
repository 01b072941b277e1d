import io
import tarfile
from pathlib import Path

import pytest

from data_prep.photos import MAX_BYTES
from pix2pix.data.tar_members import DamagedTarError, Member, is_header, members
from tests.tars import END, FORMATS, member, signed, write_huge


def scan(tmp_path: Path, data: bytes) -> list[Member]:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with path.open("rb") as file:
        return list(members(file.fileno()))


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_members_are_what_tarfile_says(tmp_path: Path, kind: int) -> None:
    data = b""
    for number, name in enumerate(["a.jpg", f"{'d' * 90}/{'e' * 90}.jpg", "sub/ü.jpg", "z"]):
        data += member(name, b"x" * (400 * number), kind)
    data += member("folder", kind=kind, type=tarfile.DIRTYPE)
    data += member("link", kind=kind, type=tarfile.SYMTYPE, linkname="y" * 100)
    found = scan(tmp_path, data + END)
    with tarfile.open(fileobj=io.BytesIO(data + END)) as archive:
        wanted = [(i.name, i.type, i.size, i.offset_data, i.linkname) for i in archive]
    assert wanted == [
        (m.name.decode().rstrip("/"), m.kind, m.size, m.offset, m.link.decode()) for m in found
    ]


def test_names_and_links_of_any_length_are_whole(tmp_path: Path) -> None:
    long = "n" * 5000
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = member(f"{long}.jpg", b"1", kind)
        data += member("b", kind=kind, type=tarfile.LNKTYPE, linkname=long) + member("c", b"3")
        found = scan(tmp_path, data + END)
        assert [m.name.decode() for m in found] == [f"{long}.jpg", "b", "c"]
        assert [m.link.decode() for m in found] == ["", long, ""]


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_members_beyond_8_gib_are_passed_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.tar"
    size = write_huge(path, kind)
    with path.open("rb") as file:
        found = [(m.name, m.size) for m in members(file.fileno())]
    assert found == [(b"large.jpg", size), (b"small.jpg", 2)]
    assert size > MAX_BYTES


def test_tars_joined_end_to_end_are_read_to_the_end(tmp_path: Path) -> None:
    data = member("a", b"1") + END * 10 + member("b", b"2") + END
    assert [m.name for m in scan(tmp_path, data)] == [b"a", b"b"]


def test_what_holds_for_all_members_is_passed_over(tmp_path: Path) -> None:
    data = member("g", b"18 comment=abcdef\n", type=b"g") + member("a.jpg", b"1")
    assert [(m.name, m.size) for m in scan(tmp_path, data + END)] == [(b"a.jpg", 1)]


def test_what_was_said_of_a_member_does_not_hold_for_the_next(tmp_path: Path) -> None:
    data = member("x", b"15 path=abcdef\n", type=b"x") + member("a") + member("b")
    assert [m.name for m in scan(tmp_path, data + END)] == [b"abcdef", b"b"]


def test_folders_of_the_oldest_tars_are_folders(tmp_path: Path) -> None:
    assert scan(tmp_path, member("folder.jpg/", type=b"\0") + END)[0].kind == b"5"


def test_sparse_members_are_known_as_such(tmp_path: Path) -> None:
    gnu = bytearray(member("a.jpg", b"data", type=b"S"))
    gnu[482] = 1  # the list of holes goes on
    holes = bytearray(512)
    holes[504] = 1
    gnu[:512] = signed(bytes(gnu[:512]))
    gnu[512:512] = bytes(holes) + bytes(512)
    records = b"22 GNU.sparse.major=1\n" + b"25 GNU.sparse.name=b.jpg\n"
    pax = member("x", records, type=b"x") + member("GNUSparseFile.0/b.jpg", b"data")
    found = scan(tmp_path, bytes(gnu) + pax + member("c.jpg", b"whole") + END)
    assert [(m.name, m.sparse) for m in found] == [
        (b"a.jpg", True),
        (b"b.jpg", True),
        (b"c.jpg", False),
    ]
    assert found[0].offset == 3 * 512


TWO = member("a.jpg", b"1" * 700) + member("b.jpg", b"2")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TWO, "the blocks that end a tar are not there"),
        (TWO[: 512 + 1024], "the blocks that end a tar are not there"),
        (TWO[:1000], "cut short: 1,212 bytes"),
        (TWO[: 512 * 3 + 100], "no header at byte 1,536"),
        (TWO[: 512 * 3] + b"?" * 512 + END, "no header at byte 1,536"),
        (TWO + b"junk" * 128 + END, "no header at byte 2,560"),
        (member("x", b"9999999 path=a\n", type=b"x") + END, "broken extended header at byte 0"),
        (member("x", b"0 path=a\n", type=b"x") + TWO + END, "broken extended header"),
        (member("x", b"-5 path=a\n", type=b"x") + TWO + END, "broken extended header"),
        (member("x", b"garbage", type=b"x") + TWO + END, "broken extended header"),
        (member("x", b"10 size=x\n", type=b"x") + TWO + END, "a member without a size"),
        (member("x", b"11 size=-1\n", type=b"x") + TWO + END, "a member without a size"),
        (member("x", b"n" * (2**20 + 1), type=b"L") + TWO + END, "extended header of 1,048,577"),
        (signed(TWO[:124] + b"not a number" + TWO[136:512]) + END, "a member without a size"),
        (signed(TWO[:124] + b"\xff" * 12 + TWO[136:512]) + END, "a member without a size"),
        (signed(TWO[:124] + b"\x80" + b"\xff" * 11 + TWO[136:512]) + END, "is cut short"),
    ],
)
def test_what_cannot_be_read_on_is_an_error(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DamagedTarError, match=message):
        scan(tmp_path, data)


def test_a_header_is_known_by_its_checksum() -> None:
    assert is_header(TWO[:512])
    assert not is_header(b"b" + TWO[1:512])
    assert not is_header(TWO[:511])
    assert not is_header(bytes(512))
    assert not is_header(b"\xff" * 512)
