"""One way to open a photograph, for data preparation and for coloring alike (no torch).

Training and coloring take the gray the same way because both come through here.
"""

import warnings
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pix2pix.photos.deep import is_deep_png
from pix2pix.photos.eight_bits import (
    PillowPicture,
    decoder_errors,
    open_unchecked,
    profile_of,
    to_8_bits,
)
from pix2pix.photos.helper import HelperPicture
from pix2pix.photos.kinds import IN_HELPER, has_deep_formats, openable_kind, refusal_of_suffix
from pix2pix.photos.metadata import orientation
from pix2pix.photos.opening import open_here, read_bytes
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import MAX_PIXELS, ROWS_MISSING, Picture, check_size, read_upright
from pix2pix.photos.profile import may_follow_a_resize, picture_to_srgb
from pix2pix.photos.upright import turn_upright

__all__ = ["MAX_PIXELS", "PhotoError", "chroma_spread", "luma", "open_photo", "open_reduced"]

ToSRGB = Callable[[Image.Image], Image.Image]

# Of fewer, one copy of all bands is faster than three; of more, arithmetic on bands that lie apart.
_FEW_PIXELS = 2**12
_HEAD_BYTES = 64  # of a file, which say what kind it is


def open_photo(source: Path | bytes, max_pixels: int | None = None) -> Image.Image:
    """Return a photograph as a person sees it: upright, in sRGB, 8 bits, mode "L" or "RGB".

    Color profiles are applied, 16-bit and float gray is scaled by its depth, transparency is laid
    on white; of several frames or pages the first photograph is taken.

    Args:
        source: a file, or the bytes of one.
        max_pixels: what has more is refused before it is decoded; MAX_PIXELS if None.

    Raises:
        PhotoError: never a warning; hostile files are somebody's ordinary download.
    """
    picture = open_picture(source, MAX_PIXELS if max_pixels is None else max_pixels)
    opened = _first_page(picture)
    missing = next((note for note in picture.notes if note.startswith(ROWS_MISSING)), None)
    if missing:
        raise PhotoError("truncated", f"the file is cut short; {missing}")
    return opened


def open_reduced(
    source: Path | bytes, short_side: int, notes: list[str] | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Return a photograph as `open_photo` does, or smaller, and its own upright (width, height).

    A JPEG comes at 1/2, 1/4 or 1/8 of its size where its short side keeps `short_side` pixels: the
    decoder then makes fewer pixels of each block, and 12 megapixels take a third of the time and a
    sixteenth of the memory.

    Args:
        source: a file, or the bytes of one.
        short_side: pixels.
        notes: gets what was not as it was meant, such as a broken color profile.

    Raises:
        PhotoError: as `open_photo`.
    """
    opened, size, to_srgb = open_to_resize(source, short_side, notes)
    return to_srgb(opened), size


def open_to_resize(
    source: Path | bytes, short_side: int, notes: list[str] | None = None
) -> tuple[Image.Image, tuple[int, int], ToSRGB]:
    """Return a photograph as `open_reduced` does, but for its colors, and what makes these sRGB.

    The function returned is for the resized picture: a color profile is applied to fewer pixels
    then, a third of them in COCO. It changes the pictures of 68 of its originals by 0.12 of 255 on
    average, the worst by 0.73. A profile whose curve is far from that of sRGB is applied here.
    """
    data = read_bytes(source)
    kind = openable_kind(data[:_HEAD_BYTES])
    to_srgb: ToSRGB = _as_it_is
    if kind == "JPEG":
        reduced = PillowPicture(BytesIO(data), kind, MAX_PIXELS, short_side)
        opened, size, told = reduced.picture(), reduced.size, reduced.notes
        if reduced.profile_to_apply:
            to_srgb = partial(picture_to_srgb, profile=reduced.profile_to_apply)
    else:
        picture = open_picture(data, MAX_PIXELS)
        opened = _first_page(picture)
        size, told = opened.size, picture.notes
    if notes is not None:
        notes += told
    return opened, size, to_srgb


def open_eighth(data: bytes) -> tuple[Image.Image, tuple[int, int], ToSRGB] | None:
    """Return a plain JPEG as `open_to_resize` does, at 1/8 of its size, but not turned upright.

    All of the file is decoded, but one pixel is made of each block: a seventh less time than half
    the size takes. None where only `open_to_resize` can tell what is in the file: another kind, one
    cut short or damaged, or of colors that have to be converted before a resize.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            photo = open_unchecked(BytesIO(data), "JPEG")
            size = photo.size
            check_size(*size, MAX_PIXELS)
            photo.draft(None, (1, 1))
            photo.load()
            profile = profile_of(photo)
    except Exception:  # decoders raise nearly every type; `open_to_resize` gives the reason
        return None
    if photo.mode not in ("L", "RGB"):
        return None
    if not profile:
        return photo, size, _as_it_is
    if not may_follow_a_resize(profile, photo.mode):
        return None
    return photo, size, partial(picture_to_srgb, profile=profile)


def open_picture(source: Path | bytes, max_pixels: int) -> Picture:
    """Open a file or its bytes, with all its pages and metadata.

    Formats with large native decoders are decoded in another process. Nothing is decoded yet.

    Raises:
        PhotoError: the reason why it cannot be opened, and what to do first.
    """
    if isinstance(source, Path):
        refused = refusal_of_suffix(source.suffix.lower())
        if refused:
            raise PhotoError(refused.reason, refused.advice)
        head = _head(source)
    else:
        head = read_bytes(source)[:_HEAD_BYTES]
    kind = openable_kind(head)
    # imagecodecs' PNG loses a reference to None when it fails: after 10,000 of them Python aborts.
    if kind in IN_HELPER or (kind == "PNG" and is_deep_png(head) and has_deep_formats()):
        return HelperPicture(source, kind, max_pixels)
    return open_here(source, kind, max_pixels)


def as_photo(picture: Image.Image) -> Image.Image:
    """Return a picture that Pillow opened as `open_photo` opens it, but for 16 bits of color.

    Raises:
        TypeError: it is no picture of Pillow's.
        PhotoError: it cannot be decoded.
    """
    if not isinstance(picture, Image.Image):
        raise TypeError(
            f"a picture of Pillow's is needed, not {type(picture).__name__}; arrays go to "
            "colorize_array, files to open_photo first"
        )
    if picture.format is None and picture.mode in ("L", "RGB") and not picture.info:
        return picture  # made by a program, as those of open_photo are
    with decoder_errors():
        turn = orientation(picture)
        picture.load()
        return turn_upright(to_8_bits(picture.copy()), turn)


def luma(photo: Image.Image) -> Image.Image:
    """Return Rec. 601 luma, mode "L": Pillow's (19595 R + 38470 G + 7471 B + 2^15) / 2^16."""
    return photo.convert("L")


def chroma_spread(photo: Image.Image) -> float:
    """Return how far a photograph is from gray: mean of max - min of R, G, B; 0 to 255.

    Of COCO's photographs, 3 % lie under 4: scans of prints, gray pictures stored as color.
    """
    if photo.mode == "L":
        return 0.0
    if photo.width * photo.height < _FEW_PIXELS:
        pixels = np.asarray(photo)
        red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    else:
        red, green, blue = (np.asarray(band) for band in photo.split())
    highest = np.maximum(np.maximum(red, green), blue)
    spreads = highest - np.minimum(np.minimum(red, green), blue)
    return float(spreads.sum() / spreads.size)


def _as_it_is(photo: Image.Image) -> Image.Image:
    return photo


def _first_page(picture: Picture) -> Image.Image:
    try:
        if isinstance(picture, PillowPicture):
            return picture.picture()
        pixels = read_upright(picture, 0, in_8_bits=True)
    finally:
        picture.close()  # its memory is wanted now
    return Image.fromarray(pixels)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES) or read_bytes(b"")
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise PhotoError("unreadable", message) from error
