"""What AVIF and HEIC files say of their picture (ISO/IEC 23008-12): depth and colors.

Such a file holds several items (thumbnails, tiles, maps of depth or gain): one is the picture.
"""

import struct

from pix2pix.photos.boxes import boxes
from pix2pix.photos.icc import profile_of_code_points

_FULL_BOX = 4  # bytes of version and flags


def picture_properties(data: bytes) -> dict[bytes, list[bytes]]:
    """Return the properties of the picture, by type; none where the file is damaged."""
    meta = dict(boxes(next((content for kind, content in boxes(data) if kind == b"meta"), b"")[4:]))
    properties = dict(boxes(meta.get(b"iprp", b"")))
    contents = list(boxes(properties.get(b"ipco", b"")))
    found: dict[bytes, list[bytes]] = {}
    try:
        for number in _numbers_of(_primary(meta[b"pitm"]), properties[b"ipma"]):
            kind, content = contents[number - 1]
            found.setdefault(kind, []).append(content)
    except (KeyError, IndexError, struct.error):
        return {}
    return found


def bits_of(properties: dict[bytes, list[bytes]]) -> int:
    """Return the bits per channel; 8 where nothing says."""
    for content in properties.get(b"pixi", ()):
        if len(content) > _FULL_BOX + 1:
            return content[_FULL_BOX + 1]
    for content in properties.get(b"av1C", ()):
        if len(content) > 2 and content[2] & 0x40:
            return 12 if content[2] & 0x20 else 10
    return 8


def profile_of_properties(properties: dict[bytes, list[bytes]]) -> bytes | None:
    """Return the color profile, or one of the code points (NCLX): b"" is sRGB, None not known."""
    colors = properties.get(b"colr", ())
    for content in colors:
        if content[:4] in (b"prof", b"rICC"):
            return content[4:]
    for content in colors:
        if content[:4] == b"nclx" and len(content) >= 8:
            return profile_of_code_points(*struct.unpack_from(">HH", content, 4))
    return b""


def _primary(content: bytes) -> int:
    return int.from_bytes(content[_FULL_BOX : _FULL_BOX + (4 if content[0] else 2)], "big")


def _numbers_of(item: int, content: bytes) -> list[int]:
    """Return the numbers of an item's properties, from 1, of a box `ipma`."""
    version, has_long_numbers = content[0], content[3] & 1
    (count,) = struct.unpack_from(">I", content, _FULL_BOX)
    at = _FULL_BOX + 4
    item_format, number_format = ">I" if version else ">H", ">H" if has_long_numbers else ">B"
    for _ in range(count):
        (found,) = struct.unpack_from(item_format, content, at)
        at += struct.calcsize(item_format)
        (num_properties,) = struct.unpack_from(">B", content, at)
        at += 1
        size = struct.calcsize(number_format)
        if found == item:
            mask = 0x7FFF if has_long_numbers else 0x7F  # the highest bit: essential
            numbers = struct.unpack_from(f">{num_properties}{number_format[1]}", content, at)
            return [number & mask for number in numbers if number & mask]
        at += num_properties * size
    return []
