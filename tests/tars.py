"""Tars made of their blocks, so that tests can damage any of them."""

import tarfile
from pathlib import Path

END = bytes(1024)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def member(name: str, data: bytes = b"", kind: int = tarfile.GNU_FORMAT, **fields) -> bytes:
    """Header, data, padding."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(kind) + data + bytes(-len(data) % 512)


def signed(header: bytes) -> bytes:
    """A header, with its checksum put right."""
    total = sum(header) - sum(header[148:156]) + 8 * 32
    return header[:148] + b"%06o\0 " % total + header[156:]


def write_huge(path: Path, kind: str) -> int:
    """A tar of large.jpg, more than 8 GiB of nothing, and small.jpg; returns the large one's size.

    kind: of FORMATS. On the disk it is a hole.
    """
    size = 2**33 + 100
    info = tarfile.TarInfo("large.jpg")
    info.size = size
    header = info.tobuf(FORMATS[kind])
    with path.open("wb") as file:
        file.write(header)
        file.seek(len(header) + size + -size % 512)
        file.write(member("small.jpg", b"12") + END)
    return size
