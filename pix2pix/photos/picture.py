"""An opened file: what it holds and how its pages are read, wherever they are decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pix2pix.photos.metadata import Metadata
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.rows import luma_of_rows, to_8_bits
from pix2pix.photos.upright import as_stored, is_sideways

# 134 million pixels are 400 MB as RGB. Larger photographs are refused unless a command is told
# otherwise: a bomb of 100 KB can claim any size.
MAX_PIXELS = 2**27

STRIP_PIXELS = 2**20  # decoded at a time

# What is said and counted of a photograph that was opened, but not as it was meant.
PROFILE_IGNORED = "its color profile is broken and was ignored"
READ_AS_8_BITS = (
    "more than 8 bits per channel were read as 8; for all of them: pip install -e '.[formats]'"
)
COLORS_NOT_READ = "what its colors mean cannot be read, and they were taken as sRGB"
FIRST_FRAME = "only the first of its frames is taken"
PREVIEWS_LEFT = "smaller pages (previews) are left out"
ROWS_MISSING = "its last rows are missing"


@dataclass(frozen=True)
class Page:
    """One page as it is stored: size in pixels, channels 1 or 3, bits 8 or 16, orientation 1-8."""

    width: int
    height: int
    channels: int
    bits: int
    orientation: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as it is seen."""
        size = (self.width, self.height)
        return size[::-1] if is_sideways(self.orientation) else size


class Picture(Protocol):
    """An opened file.

    Attributes:
        num_pages: those that are photographs, of like size.
        num_pixels: of the largest page, as the file's head says.
        metadata: what the file says beside its pixels.
        notes: what was not as it was meant; grows while pages are read.
    """

    num_pages: int
    num_pixels: int
    notes: list[str]

    @property
    def metadata(self) -> Metadata:
        """What the file says beside its pixels."""

    def page(self, index: int) -> Page:
        """Return what `rows` will give; may decode the page."""

    def rows(self, index: int) -> Iterator[np.ndarray]:
        """Yield the stored rows from the top, [rows, W] or [rows, W, 3], in sRGB."""

    def close(self) -> None:
        """Release the file."""


def read_upright(picture: Picture, index: int, in_8_bits: bool = False) -> np.ndarray:
    """Return a page as it is seen: [H, W] or [H, W, 3], uint8 or uint16, in sRGB.

    Args:
        picture: an opened file.
        index: of the page.
        in_8_bits: rounds 16 bits to 8, a strip at a time.

    Raises:
        PhotoError: not all of it is there.
    """
    page = picture.page(index)
    width, height = page.upright_size
    shape = (height, width) if page.channels == 1 else (height, width, 3)
    strips = picture.rows(index)
    if in_8_bits:
        strips = map(to_8_bits, strips)
    upright = np.empty(shape, np.uint8 if in_8_bits or page.bits == 8 else np.uint16)
    _fill(as_stored(upright, page.orientation), strips)
    return upright


def read_gray(picture: Picture, index: int) -> np.ndarray:
    """Return a page's luma as it is seen: [H, W], uint8 or uint16. Its colors are never in memory.

    Raises:
        PhotoError: not all of it is there.
    """
    page = picture.page(index)
    width, height = page.upright_size
    upright = np.empty((height, width), np.uint8 if page.bits == 8 else np.uint16)
    _fill(as_stored(upright, page.orientation), map(luma_of_rows, picture.rows(index)))
    return upright


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise PhotoError unless a page of this size may be opened: too_many_pixels, undecodable."""
    if width < 1 or height < 1:
        raise PhotoError("undecodable", "a picture without pixels")
    if width * height > max_pixels:
        message = f"{width} x {height} pixels; at most {max_pixels:,} are opened"
        raise PhotoError("too_many_pixels", message)


def _fill(stored: np.ndarray, strips: Iterable[np.ndarray]) -> None:
    top = 0
    for rows in strips:
        stored[top : top + len(rows)] = rows
        top += len(rows)
    if top != len(stored):
        raise PhotoError("truncated", f"only {top:,} of {len(stored):,} rows are there")
