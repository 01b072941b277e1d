"""Tars made of their blocks, so that tests can damage any of them."""

import tarfile

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
