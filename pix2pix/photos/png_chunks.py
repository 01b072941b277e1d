"""Chunks of a PNG: to read what it says without its pixels, and to say more than encoders do."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of each chunk; stops where one is cut short."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        if start + 12 + length > len(data):
            return
        yield data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        start += 12 + length


def without_pixels(data: bytes) -> bytes:
    """Return a PNG of one pixel that says of itself what this one does.

    Some of it may follow the pixels, which would have to be decoded to read it.
    """
    kept = [SIGNATURE]
    for kind, content in chunks(data):
        if kind == b"IHDR":
            content = struct.pack(">IIBBBBB", 1, 1, 8, content[9], 0, 0, 0)
        if kind not in (b"IDAT", b"IEND", b"tRNS"):
            kept.append(chunk(kind, content))
    return b"".join([*kept, chunk(b"IDAT", zlib.compress(bytes(5))), chunk(b"IEND", b"")])
