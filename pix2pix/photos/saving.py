"""Colored pages into files: JPEG, PNG, WebP or TIFF, with what their photograph said of itself."""

import errno
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2pix.errors import UserError
from pix2pix.photos.metadata import METADATA_LEFT_OUT, Metadata, jpeg_segment_of_iptc
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.png_chunks import insert_chunks, metadata_chunks
from pix2pix.photos.rows import to_8_bits
from pix2pix.photos.tiff_writing import write_tiff

# Extension → Pillow's format, and how it is saved. The chroma is what was painted: 4:4:4 keeps it.
_JPEG: tuple[str, dict[str, Any]] = ("JPEG", {"quality": 95, "subsampling": "4:4:4"})
_TIFF: tuple[str, dict[str, Any]] = ("TIFF", {"compression": "tiff_lzw"})
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jpe": _JPEG,
    ".jfif": _JPEG,
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
COMPARISON_SIDE = 1920  # pixels; two fit on a 4K screen, and into a WebP
SAVED_AS_8_BITS = "more than 8 bits per channel are saved as 8, which is all that the format has"

_NUMBERS = count()
# Files on their way; machine and process tell whether whoever wrote one still does.
_ASIDE = ".colorize-{machine}-{process}-{number}.partial"
_ASIDE_PATTERN = re.compile(r"\.colorize-(.*)-(\d+)-\d+\.partial")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAX_SEGMENT = 65_533 - 32  # bytes of a JPEG's segment, less the name of what is in it


def save_photo(photo: Image.Image, target: Path) -> None:
    """Save a picture completely or not at all; the format follows the extension.

    Raises:
        PhotoError: unwritable.
        UserError: the disk is full.
    """
    kind, parameters = FORMATS[target.suffix.lower()]
    with _complete_or_absent(target) as aside, aside.open("wb") as file:
        photo.save(file, kind, **parameters)
        _flush(file)


def save_pages(
    pages: Iterable[np.ndarray],
    target: Path,
    metadata: Metadata,
    num_pages: int = 1,
    times_ns: tuple[int, int] | None = None,
) -> list[str]:
    """Save the pages of a colored photograph completely or not at all.

    Args:
        pages: [H, W, 3] each, uint8 or uint16; taken one after the other.
        target: the format follows its extension; several pages need a TIFF.
        metadata: goes with them as far as the format has a place for it.
        num_pages: how many there are.
        times_ns: of the file's last access and change, in nanoseconds; None for now.

    Returns:
        What was lost, in sentences.

    Raises:
        PhotoError: unwritable, or from `pages`.
        UserError: the disk is full.
    """
    kind, parameters = FORMATS[target.suffix.lower()]
    if num_pages > 1 and kind != "TIFF":
        message = f"{target} cannot hold its {num_pages} pages; choose --format tiff or keep"
        raise PhotoError("unwritable", message)
    lost: list[str] = []
    with _complete_or_absent(target) as aside:
        with aside.open("w+b") as file:
            if kind == "TIFF":
                lost += write_tiff(file, pages, num_pages, metadata)
            else:
                page = next(iter(pages))
                if page.dtype == np.uint16 and kind != "PNG":
                    lost.append(SAVED_AS_8_BITS)
                lost += _save_page(file, page, kind, parameters, metadata)
            _flush(file)
        if times_ns is not None:
            os.utime(aside, ns=times_ns)
    return lost


def remove_leftovers(folders: Iterable[Path]) -> int:
    """Remove unfinished files of processes of this machine that have ended; returns how many."""
    count = 0
    for folder in folders:
        for file in folder.glob(".colorize-*.partial"):
            found = _ASIDE_PATTERN.fullmatch(file.name)
            if found and found[1] == _machine() and not _is_alive(int(found[2])):
                with suppress(OSError):
                    file.unlink()
                    count += 1
    return count


def side_by_side(gray: Image.Image, colored: Image.Image) -> Image.Image:
    """Return two pictures of one size beside each other, each reduced to at most 1920 px a side."""
    scale = min(1.0, COMPARISON_SIDE / max(gray.size))
    width, height = (max(1, round(side * scale)) for side in gray.size)
    pair = [p.resize((width, height), Image.Resampling.LANCZOS) for p in (gray, colored)]
    beside = Image.new("RGB", (2 * width, height))
    for column, picture in enumerate(pair):
        beside.paste(picture, (column * width, 0))
    return beside


def _save_page(
    file: Any, page: np.ndarray, kind: str, parameters: dict[str, Any], metadata: Metadata
) -> list[str]:
    if kind == "PNG":
        file.write(insert_chunks(_png(page), metadata_chunks(metadata, *page.shape[1::-1])))
        return [METADATA_LEFT_OUT] if metadata.iptc else []
    told, lost = _told(kind, metadata, *page.shape[1::-1])
    Image.fromarray(to_8_bits(page)).save(file, kind, **parameters, **told)
    return lost


def _png(page: np.ndarray) -> bytes:
    if page.dtype == np.uint16:
        import imagecodecs

        return bytes(imagecodecs.png_encode(page))
    file = BytesIO()
    Image.fromarray(page).save(file, "PNG")
    return file.getvalue()


def _told(
    kind: str, metadata: Metadata, width: int, height: int
) -> tuple[dict[str, Any], list[str]]:
    """Parameters for Pillow's JPEG or WebP that carry metadata, and what does not fit."""
    told: dict[str, Any] = {}
    lost: list[str] = []
    exif = metadata.exif_of_size(width, height, with_dpi=kind == "WEBP")
    blobs = (("exif", bytes(exif.tobytes()) if len(exif) else b""), ("xmp", metadata.xmp))
    for name, blob in blobs:
        if kind == "JPEG" and len(blob) > _MAX_SEGMENT:
            lost.append(METADATA_LEFT_OUT)
        elif blob:
            told[name] = blob
    if kind == "JPEG":
        if metadata.dpi:
            told["dpi"] = tuple(round(value) for value in metadata.dpi)
        if "comment" in metadata.text:
            told["comment"] = metadata.text["comment"].encode()
        segment = jpeg_segment_of_iptc(metadata.iptc) if metadata.iptc else b""
        if segment:
            told["extra"] = segment
    if metadata.iptc and "extra" not in told:
        lost.append(METADATA_LEFT_OUT)
    return told, lost[:1]


@contextmanager
def _complete_or_absent(target: Path) -> Iterator[Path]:
    """Yield a file that becomes `target` at the end, and is removed if anything is raised."""
    # Short, because names have a limit; a number, because files are saved while another is made.
    name = _ASIDE.format(machine=_machine(), process=os.getpid(), number=next(_NUMBERS))
    aside = target.parent / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except PhotoError:
        raise
    except (OSError, ValueError) as error:  # ValueError: WebP's limit of 16383 px a side
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise UserError(f"no space left for {target}; free some and run again") from None
        raise PhotoError("unwritable", f"{target} cannot be written: {error}") from error


def _machine() -> str:
    """Return the name of this machine: a folder may be shared with others."""
    return platform.node().replace("/", "")[:64]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
