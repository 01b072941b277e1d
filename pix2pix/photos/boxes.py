"""Boxes of the ISO base media format: what JPEG 2000, JPEG XL, AVIF say beside their pixels."""

import struct
from collections.abc import Iterator

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
JPEG2000_STREAM = b"\xff\x4f\xff\x51"  # how a codestream begins
_EXIF_UUID = b"JpgTiffExif->JP2"
_ICC_METHODS = (b"\2", b"\3")  # of JPEG 2000's `colr`: restricted, any


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of each box, until one that is damaged."""
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= len(data):
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        end = len(data) if size == 0 else start + size
        if end < start + head or end > len(data):
            return
        yield kind, data[start + head : end]
        start = end


def jpeg2000_profile(data: bytes) -> bytes:
    """Return the ICC profile of a JPEG 2000 file; nothing where there is none."""
    for kind, content in boxes(data):
        if kind == b"jp2h":
            for inner, value in boxes(content):
                if inner == b"colr" and value[:1] in _ICC_METHODS:
                    return value[3:]
    return b""


def jpeg2000_bits(data: bytes) -> int:
    """Return the bits per channel that the codestream names; 0 where there is none."""
    start = data.find(JPEG2000_STREAM)
    return (data[start + 42] & 0x7F) + 1 if 0 <= start < len(data) - 42 else 0


def exif_and_xmp(data: bytes) -> tuple[bytes, bytes]:
    """Return EXIF, from its TIFF header on, and XMP of a JPEG 2000 or JPEG XL file."""
    exif = xmp = b""
    for kind, content in boxes(data):
        if kind == b"Exif":  # four bytes say where its TIFF header begins
            exif = content[4:]
        elif kind == b"xml ":
            xmp = content
        elif kind == b"uuid" and content.startswith(_EXIF_UUID):
            exif = content[16:]
        elif kind == b"uuid" and content.startswith(_XMP_UUID):
            xmp = content[16:]
    return exif, xmp
