"""The members of a tar and their offsets, by one pread of 512 bytes for each member.

Python's tarfile takes three times as long, stops at a damaged header as if that were the end, and
reads a name of any length into memory.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512  # bytes: a tar is made of them

_ZEROS = bytes(BLOCK)
_MAX_EXTENDED = 2**20  # bytes of an extended header: names, times, attributes
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"  # GNU's
_EXTENDED = (b"x", b"X")  # of one member, in POSIX.1-2001 and before it
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes


class DamagedTarError(ValueError):
    """The rest of the tar cannot be read; the message says why."""


class Member(NamedTuple):
    """A file of a tar, or a link to one.

    name, link: paths as they are stored. kind: the type flag of POSIX.1-1988, b"0" for a file.
    size: bytes of data at `offset`. sparse: the data are only a part, with the holes taken out.
    """

    name: bytes
    kind: bytes
    size: int
    offset: int
    link: bytes
    sparse: bool


def is_header(block: bytes) -> bool:
    """Return True if a block begins a member: its own checksum says so (POSIX.1-1988, ustar)."""
    if len(block) < BLOCK or block == _ZEROS:
        return False
    try:
        return _number(block[148:156]) == sum(block) - sum(block[148:156]) + 8 * ord(" ")
    except ValueError:
        return False


def members(descriptor: int) -> Iterator[Member]:
    """Yield every member of the open tar, extended headers applied.

    Tars that were joined end to end are read to the end of the last. Raises DamagedTarError,
    OSError.
    """
    length = os.fstat(descriptor).st_size
    offset = 0
    ended = False  # zero blocks end a tar
    extended: dict[bytes, bytes] = {}  # what was said of the next member
    while offset < length:
        start, header = offset, os.pread(descriptor, BLOCK, offset)
        offset += BLOCK
        ended = header == _ZEROS
        if ended:
            continue
        if not is_header(header):
            cut = ": it is cut short" if len(header) < BLOCK else ""
            raise DamagedTarError(f"no header at byte {start:,}, where one should be{cut}")
        kind = header[156:157].replace(b"\0", b"0")
        size = _size(header, extended, start)
        if kind == _SPARSE:
            offset += _sparse_blocks(descriptor, header, offset)
        has_data = kind not in _WITHOUT_DATA
        end = offset + size if has_data else offset
        if end > length:
            raise DamagedTarError(f"it is cut short: {end:,} bytes and more expected")
        if kind in (*_EXTENDED, _LONG_NAME, _LONG_LINK):
            if size > _MAX_EXTENDED:
                raise DamagedTarError(f"an extended header of {size:,} bytes at byte {start:,}")
            extended |= _extension(kind, os.pread(descriptor, size, offset), start)
        elif kind != b"g":  # what holds for all members is of no use here: comments, times
            yield _member(header, kind, size if has_data else 0, offset, extended)
            extended = {}
        offset = -(-end // BLOCK) * BLOCK
    if not ended:
        raise DamagedTarError("it is cut short: the blocks that end a tar are not there")


def _member(
    header: bytes, kind: bytes, size: int, offset: int, extended: dict[bytes, bytes]
) -> Member:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:  # GNU's own format has times there
        name = _text(header[345:500]) + b"/" + name
    name = extended.get(b"GNU.sparse.name", extended.get(b"path", name))
    link = extended.get(b"linkpath", _text(header[157:257]))
    sparse = kind == _SPARSE or any(key.startswith(b"GNU.sparse.") for key in extended)
    if kind == b"0" and name.endswith(b"/"):  # how tars before 1988 wrote a folder
        kind = b"5"
    return Member(name, kind, size, offset, link, sparse)


def _size(header: bytes, extended: dict[bytes, bytes], start: int) -> int:
    """Return the bytes of data; of a file of 8 GiB and more, the extended header says it."""
    is_extended = header[156:157] in (*_EXTENDED, b"g", _LONG_NAME, _LONG_LINK)
    said = None if is_extended else extended.get(b"size")
    try:
        size = _number(header[124:136]) if said is None else int(said)
    except ValueError:
        size = -1
    if size < 0:
        raise DamagedTarError(f"a member without a size at byte {start:,}")
    return size


def _number(field: bytes) -> int:
    """Parse octal digits, or GNU's base 256, marked by the highest bit. Raises ValueError."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _sparse_blocks(descriptor: int, header: bytes, offset: int) -> int:
    """Bytes of the blocks that list the holes of GNU's sparse format, between header and data."""
    count, goes_on = 0, header[482]
    while goes_on:
        block = os.pread(descriptor, BLOCK, offset + count)
        if len(block) < BLOCK:
            raise DamagedTarError("it is cut short in a list of holes")
        count, goes_on = count + BLOCK, block[504]
    return count


def _extension(kind: bytes, data: bytes, start: int) -> dict[bytes, bytes]:
    """Return what an extended header says: a long name or link (GNU), or pax records."""
    if kind == _LONG_NAME:
        return {b"path": _text(data)}
    if kind == _LONG_LINK:
        return {b"linkpath": _text(data)}
    fields = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or not 0 < length <= len(data):
            raise DamagedTarError(f"a broken extended header at byte {start:,}")
        fields[key] = value
        data = data[length:]
    return fields
