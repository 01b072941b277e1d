"""Chunks of a PNG: to read what it says without its pixels, and to say more than encoders do."""

import struct
import zlib
from collections.abc import Iterator

from pix2pix.photos.icc import SRGB_CHROMATICITIES, profile_of_code_points, rgb_profile
from pix2pix.photos.metadata import Metadata

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


def profile_of_cicp(data: bytes) -> bytes | None:
    """Return a profile of the code points in a PNG's cICP, which go before all else that it says.

    b"" where there are none; None where they are not known.
    """
    for kind, content in chunks(data):
        if kind == b"cICP" and len(content) == 4:
            profile = profile_of_code_points(content[0], content[1])
            return rgb_profile(SRGB_CHROMATICITIES, None) if profile == b"" else profile
        if kind == b"IDAT":
            break
    return b""


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


def metadata_chunks(metadata: Metadata, width: int, height: int) -> bytes:
    """Return the chunks that carry the metadata of a result of this size (PNG 1.2, eXIf 1.5)."""
    told = []
    if metadata.dpi:
        across, down = (round(value / 0.0254) for value in metadata.dpi)
        told.append(chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    exif = metadata.exif_of_size(width, height)
    if len(exif):
        told.append(chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    if metadata.xmp:
        told.append(_text_chunk("XML:com.adobe.xmp", metadata.xmp))
    told += [_text_chunk(key, text.encode()) for key, text in metadata.text.items()]
    return b"".join(told)


def insert_chunks(data: bytes, told: bytes) -> bytes:
    """Return an encoded PNG with more chunks, which stand before its pixels."""
    header_end = len(SIGNATURE) + 25
    return data[:header_end] + told + data[header_end:]


def _text_chunk(key: str, text: bytes) -> bytes:
    """Text in UTF-8: keyword, not compressed, no language."""
    keyword = key.encode("latin-1", "replace")[:79] or b"Comment"
    return chunk(b"iTXt", keyword + bytes(5) + text)
