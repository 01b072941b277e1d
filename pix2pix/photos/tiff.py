"""TIFF by tifffile: which pages are photographs, and their rows, a strip or row of tiles at a time.

Scanners and archives write 16 bits, floats, either byte order, tiles, planes, several pages, and a
preview before the picture or beside it. Pillow reads what is left: palettes, YCbCr, 1 bit.
"""

from collections.abc import Iterator
from functools import cached_property
from io import BytesIO
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from pix2pix.photos.eight_bits import PillowPicture, decoder_errors, open_unchecked
from pix2pix.photos.icc import adobe_rgb
from pix2pix.photos.kinds import REFUSED
from pix2pix.photos.metadata import ORIENTATION, Metadata, read_metadata
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import (
    PREVIEWS_LEFT,
    PROFILE_IGNORED,
    STRIP_PIXELS,
    Page,
    check_size,
)
from pix2pix.photos.profile import BrokenProfileError, rows_to_srgb
from pix2pix.photos.rows import Encoding, decode_rows, white_of_floats

_MOST_PAGES = 10_000
_DNG_VERSION, _INK_SET, _ICC_PROFILE = 50706, 332, 34675
_CFA, _LINEAR_RAW = 32803, 34892
_RAW_COMPRESSIONS = (32767, 34713, 65535)  # Sony's, Nikon's, Pentax'
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_NUM_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_ALPHA = {1: "premultiplied", 2: "straight"}
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_JPEG = (6, 7)
_LIKE = 0.6  # of the largest page's sides; steps of a pyramid have half
_PLAIN_WHITE = 2**16


class TiffPicture:
    """A TIFF whose pages are photographs of like size."""

    def __init__(self, source: Path | bytes, max_pixels: int) -> None:
        import tifffile

        self.notes: list[str] = []
        self._source = source
        self._max_pixels = max_pixels
        with decoder_errors():
            self._tiff = tifffile.TiffFile(BytesIO(source) if isinstance(source, bytes) else source)
            self._pages = self._choose()
        self.num_pages = len(self._pages)
        self.num_pixels = max(p.imagewidth * p.imagelength for _, p in self._pages)

    @cached_property
    def metadata(self) -> Metadata:
        """What the first page says beside its pixels; Pillow reads it."""
        try:
            with decoder_errors(), open_unchecked(self._file(), "TIFF") as header:
                header.seek(max(self._pages[0][0], 0))
                return read_metadata(header)
        except PhotoError:  # of kinds that Pillow does not know
            return Metadata()

    def page(self, index: int) -> Page:
        """Return its size."""
        number, page = self._pages[index]
        check_size(page.imagewidth, page.imagelength, self._max_pixels)
        if not _is_ours(page) and number >= 0:
            return self._by_pillow(index).page(0)
        encoding = self._encoding(index)
        turned = page.tags.get(ORIENTATION)
        value = turned.value if turned is not None and turned.value in range(1, 9) else 1
        return Page(page.imagewidth, page.imagelength, encoding.channels, encoding.bits, value)

    def rows(self, index: int) -> Iterator[np.ndarray]:
        """Yield a page's rows, decoding no more than a strip or a row of tiles at a time."""
        number, page = self._pages[index]
        if not _is_ours(page) and number >= 0:
            yield from self._by_pillow(index).rows(0)
            return
        encoding = self._encoding(index)
        for strip in _strips(page):
            yield decode_rows(strip, encoding)

    def close(self) -> None:
        """Release the file."""
        self._tiff.close()

    def _file(self) -> Any:
        return BytesIO(self._source) if isinstance(self._source, bytes) else self._source

    def _choose(self) -> list[tuple[int, Any]]:
        """Return (number in the chain of pages, page) of those to show; number -1: in no chain."""
        found: list[tuple[int, Any]] = []
        for number, page in enumerate(islice(self._tiff.pages, _MOST_PAGES)):
            found.append((number, page))
            if page.subifds:
                found += [(-1, inner) for inner in page.pages or ()]
        for _, page in found:
            _refuse_raw(page)
        whole = [(n, p) for n, p in found if not p.subfiletype & (_REDUCED | _MASK)]
        if not whole:
            whole = [(n, p) for n, p in found if not p.subfiletype & _MASK]
        if not whole:
            raise PhotoError("undecodable", "a TIFF without a picture")
        largest = max((p for _, p in whole), key=lambda p: p.imagewidth * p.imagelength)
        sides = sorted((largest.imagewidth, largest.imagelength))
        like = [
            (n, p)
            for n, p in whole
            if all(
                side >= _LIKE * least
                for side, least in zip(sorted((p.imagewidth, p.imagelength)), sides, strict=True)
            )
        ]
        if len(like) < len(whole):
            self.notes.append(f"{PREVIEWS_LEFT}: {len(whole) - len(like)}")
        return like

    def _by_pillow(self, index: int) -> PillowPicture:
        if getattr(self, "_opened", (-1, None))[0] != index:
            number, _ = self._pages[index]
            picture = PillowPicture(self._file(), "TIFF", self._max_pixels, frame=number)
            picture.notes = self.notes
            self._opened = (index, picture)
        return self._opened[1]

    def _encoding(self, index: int) -> Encoding:
        _, page = self._pages[index]
        if not hasattr(page, "pix2pix_encoding"):
            with decoder_errors():
                page.pix2pix_encoding = self._find_encoding(page)
        encoding: Encoding = page.pix2pix_encoding
        return encoding

    def _find_encoding(self, page: Any) -> Encoding:
        if not _is_readable(page):
            raise PhotoError("unsupported", f"a TIFF of a kind that is not read: {_describe(page)}")
        num_colors = _NUM_COLORS[page.photometric]
        profile = _value(page, _ICC_PROFILE) or b""
        to_srgb = None
        if profile:
            try:
                to_srgb = rows_to_srgb(bytes(profile), num_colors)
            except BrokenProfileError:
                self.notes.append(PROFILE_IGNORED)
        elif num_colors == 3 and _is_adobe_rgb(page):
            to_srgb = rows_to_srgb(adobe_rgb(), 3)
        alpha = page.extrasamples[0] if page.extrasamples else 0
        return Encoding(
            white=_white(page),
            is_inverted=page.photometric == _WHITE_IS_ZERO,
            num_colors=num_colors,
            alpha=_ALPHA.get(int(alpha), ""),
            to_srgb=to_srgb,
            bits=8 if page.bitspersample <= 8 else 16,
        )


def _refuse_raw(page: Any) -> None:
    """Raise PhotoError for a camera's raw file, of which only the preview could be read."""
    is_raw = page.photometric in (_CFA, _LINEAR_RAW) or page.compression in _RAW_COMPRESSIONS
    if is_raw or _DNG_VERSION in page.tags:
        raise PhotoError(REFUSED["raw"].reason, REFUSED["raw"].advice)


def _is_ours(page: Any) -> bool:
    """Return True where tifffile gives what the file means, and not Pillow."""
    if page.bitspersample > 8 or page.sampleformat != _UNSIGNED:
        return True
    plain = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    return plain and page.bitspersample == 8 and page.compression not in _JPEG


def _is_readable(page: Any) -> bool:
    if page.photometric not in _NUM_COLORS or page.imagedepth != 1:
        return False
    if page.photometric == _CMYK and (_value(page, _INK_SET) or 1) != 1:
        return False
    if not _NUM_COLORS[page.photometric] <= page.samplesperpixel <= 8:
        return False
    return page.dtype is not None and page.dtype.kind in "uif" and page.dtype.itemsize <= 8


def _describe(page: Any) -> str:
    return (
        f"photometric {page.photometric}, {page.samplesperpixel} samples of {page.bitspersample} "
        f"bits, format {page.sampleformat}, compression {page.compression}"
    )


def _value(page: Any, tag: int) -> Any:
    found = page.tags.get(tag)
    return found.value if found is not None else None


def _is_adobe_rgb(page: Any) -> bool:
    exif = _value(page, 0x8769)
    return isinstance(exif, dict) and exif.get("ColorSpace") == 2


def _white(page: Any) -> float:
    """Return the sample that is full white (or full black, or full ink)."""
    if page.sampleformat == _FLOAT:
        return white_of_floats(_strips(page))
    bits = page.bitspersample - (page.sampleformat == _SIGNED)
    if bits > 16:  # 32 bits mostly hold 16: take the depth that the values need
        highest = max(int(strip.max(initial=0)) for strip in _strips(page))
        return float(_PLAIN_WHITE - 1 if highest < _PLAIN_WHITE else 2**bits - 1)
    return float(2**bits - 1)


def _strips(page: Any) -> Iterator[np.ndarray]:
    """Yield the rows of a page as [rows, W, samples], from the top."""
    if page.is_memmappable and page.is_contiguous and page.planarconfig == 1:
        samples = page.asarray(out="memmap").reshape(page.imagelength, page.imagewidth, -1)
        height = max(1, STRIP_PIXELS // page.imagewidth)
        for top in range(0, page.imagelength, height):
            yield np.array(samples[top : top + height])
        return
    tile_height = page.tilelength if page.is_tiled else page.rowsperstrip
    tile_width = page.tilewidth if page.is_tiled else page.imagewidth
    across = -(-page.imagewidth // tile_width)
    down = -(-page.imagelength // tile_height)
    num_planes = page.samplesperpixel if page.planarconfig == 2 else 1
    if len(page.dataoffsets) < across * down * num_planes:
        raise PhotoError("truncated", "the file lacks the places of its strips")
    for band in range(down):
        height = min(tile_height, page.imagelength - band * tile_height)
        rows = np.zeros((height, page.imagewidth, page.samplesperpixel), page.dtype)
        for plane, column in product(range(num_planes), range(across)):
            segment = _segment(page, (plane * down + band) * across + column)
            left = column * tile_width
            piece = segment[0, :height, : page.imagewidth - left]
            planes = slice(plane, plane + 1) if num_planes > 1 else slice(None)
            rows[: len(piece), left : left + piece.shape[1], planes] = piece
        yield rows


def _segment(page: Any, index: int) -> np.ndarray:
    """Return a strip or tile, [1, rows, columns, samples]."""
    file = page.parent.filehandle
    size = page.databytecounts[index]
    file.seek(page.dataoffsets[index])
    data = file.read(size)
    if len(data) < size or not size:
        raise PhotoError("truncated", "the file is cut short: a strip or tile is missing")
    decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
    if decoded is None:
        raise PhotoError("truncated", "a strip or tile is missing")
    segment: np.ndarray = decoded
    return segment
