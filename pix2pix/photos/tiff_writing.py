"""Writes TIFF: 8 bits and one page by Pillow, 16 bits and several pages by tifffile where it is."""

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from pix2pix.photos.kinds import has_deep_formats
from pix2pix.photos.metadata import IPTC_OF_TIFF, METADATA_LEFT_OUT, XMP_OF_TIFF, Metadata

_ROWS_BYTES = 2**20  # of a strip, before compression
_CLASSIC_BYTES = 2**32 - 2**26  # beyond that, offsets need 64 bits
_ASCII, _BYTE, _UNDEFINED, _LONG = 2, 1, 7, 4
_SUB_DIRECTORIES = (0x8769, 0x8825)  # EXIF's and GPS'


def write_tiff(
    file: Any, pages: Iterable[np.ndarray], num_pages: int, metadata: Metadata
) -> list[str]:
    """Write pages, [H, W, 3] of uint8 or uint16, into a file opened "w+b"; metadata on the first.

    Returns:
        What was lost, in sentences.
    """
    if has_deep_formats():
        return _write_by_tifffile(file, pages, num_pages, metadata)
    first, *others = (Image.fromarray(page) for page in pages)
    height, width = first.height, first.width
    exif = metadata.exif_of_size(width, height)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    blobs = {XMP_OF_TIFF: metadata.xmp, IPTC_OF_TIFF: metadata.iptc}
    for tag, value in (*exif.items(), *blobs.items()):
        if value and tag not in _SUB_DIRECTORIES:
            tags[tag] = value
    first.save(
        file,
        "TIFF",
        compression="tiff_lzw",
        save_all=bool(others),
        append_images=others,
        tiffinfo=tags,
        **({"dpi": metadata.dpi} if metadata.dpi else {}),
    )
    _append_directories(file, exif)
    return []


def _write_by_tifffile(
    file: Any, pages: Iterable[np.ndarray], num_pages: int, metadata: Metadata
) -> list[str]:
    import tifffile

    writer: tifffile.TiffWriter | None = None
    exif = Image.Exif()
    is_big = False
    for page in pages:
        if writer is None:
            is_big = page.nbytes * num_pages > _CLASSIC_BYTES
            writer = tifffile.TiffWriter(file, bigtiff=is_big, byteorder="<")
            exif = metadata.exif_of_size(page.shape[1], page.shape[0])
            extra = _extra_tags(metadata, exif)
        writer.write(
            page,
            photometric="rgb",
            compression="lzw",
            predictor=True,
            rowsperstrip=max(1, _ROWS_BYTES // (page.shape[1] * page.shape[2] * page.itemsize)),
            resolution=metadata.dpi or (1, 1),
            resolutionunit="INCH" if metadata.dpi else "NONE",
            metadata=None,
            software=False,
            maxworkers=1,
            extratags=extra,
        )
        extra = []
    assert writer is not None, "no pages"
    writer.close()
    if is_big:  # its directories have another form
        return [METADATA_LEFT_OUT] if len(exif) else []
    _append_directories(file, exif)
    return []


def _extra_tags(metadata: Metadata, exif: Image.Exif) -> list[tuple[int, int, int, Any, bool]]:
    """Tags as tifffile takes them: (code, type, count, value, first page only)."""
    tags: list[tuple[int, int, int, Any, bool]] = []
    for code, value in exif.items():
        if code in _SUB_DIRECTORIES:
            continue
        if isinstance(value, str):
            tags.append((code, _ASCII, 0, value.encode("latin-1", "replace"), True))
        elif isinstance(value, bytes):
            is_text = code not in range(40091, 40096)
            count = 0 if is_text else len(value)
            tags.append((code, _ASCII if is_text else _BYTE, count, value, True))
    for code, kind, blob in (
        (XMP_OF_TIFF, _BYTE, metadata.xmp),
        (IPTC_OF_TIFF, _UNDEFINED, metadata.iptc),
    ):
        if blob:
            tags.append((code, kind, len(blob), blob, True))
    return tags


def _append_directories(file: Any, exif: Image.Exif) -> None:
    """Write EXIF's and GPS' directories behind the pages, then the first page's, which names them.

    tifffile writes no tag that points to a directory. Places in a TIFF are counted from its start,
    so a directory may be written anew anywhere, and the head of the file says where it is.
    """
    entries = []
    for code in _SUB_DIRECTORIES:
        fields = exif.get_ifd(code) if code in exif else {}
        if fields:
            directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
            for tag, value in fields.items():
                directory[tag] = value
            start = _even_end(file)
            file.write(directory.tobytes(start))
            entries.append(struct.pack("<HHII", code, _LONG, 1, start))
    if not entries:
        return
    file.seek(4)
    (first,) = struct.unpack("<I", file.read(4))
    file.seek(first)
    (count,) = struct.unpack("<H", file.read(2))
    entries += [file.read(12) for _ in range(count)]
    following = file.read(4)
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    start = _even_end(file)
    file.write(struct.pack("<H", len(entries)) + b"".join(entries) + following)
    file.seek(4)
    file.write(struct.pack("<I", start))


def _even_end(file: Any) -> int:
    """Go to where a directory may begin behind everything else."""
    end: int = file.seek(0, 2)
    return int(file.seek(end + end % 2))
