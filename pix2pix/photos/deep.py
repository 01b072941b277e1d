"""Pictures that are decoded whole: PNG, JPEG 2000, AVIF, HEIC of 10 to 16 bits, and JPEG XL."""

from collections.abc import Callable, Iterator
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from pix2pix.photos.boxes import JPEG2000_STREAM, exif_and_xmp, jpeg2000_bits, jpeg2000_profile
from pix2pix.photos.eight_bits import decoder_errors, open_unchecked, profile_of
from pix2pix.photos.jxl_header import read_jxl_header
from pix2pix.photos.jxl_profile import profile_by_libjxl
from pix2pix.photos.metadata import Metadata, orientation, read_metadata
from pix2pix.photos.pages_of_memory import forget
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import (
    COLORS_NOT_READ,
    FIRST_FRAME,
    PROFILE_IGNORED,
    STRIP_PIXELS,
    Page,
    check_size,
)
from pix2pix.photos.png_chunks import without_pixels
from pix2pix.photos.profile import BrokenProfileError, rows_to_srgb
from pix2pix.photos.rows import Encoding, decode_rows, white_of_floats

_PNG_DEPTH = 24  # byte of the file


class ArrayPicture:
    """A picture that a function decodes to [H, W] or [H, W, samples].

    white: the sample that is full; floats have their own.
    """

    num_pages = 1

    def __init__(
        self,
        decode: Callable[[], np.ndarray],
        size: tuple[int, int],
        white: float,
        profile: bytes,
        orientation: int,
        metadata: Metadata,
    ) -> None:
        self._decode = decode
        self.num_pixels = size[0] * size[1]
        self._white = white
        self._profile = profile
        self._orientation = orientation
        self.metadata = metadata
        self.notes: list[str] = []

    def page(self, index: int) -> Page:
        """Decode it, and return its size."""
        height, width = self._samples.shape[:2]
        encoding = self._encoding
        return Page(width, height, encoding.channels, encoding.bits, self._orientation)

    def rows(self, index: int) -> Iterator[np.ndarray]:
        """Yield it in strips, whose memory is free afterwards: once more decodes it once more."""
        samples, encoding = self._samples, self._encoding
        height = max(1, STRIP_PIXELS // samples.shape[1])
        try:
            for top in range(0, len(samples), height):
                strip = samples[top : top + height]
                yield decode_rows(strip, encoding).copy()
                forget(strip)
        finally:
            self.close()

    def close(self) -> None:
        """Forget the samples."""
        self.__dict__.pop("_samples", None)

    @cached_property
    def _samples(self) -> np.ndarray:
        with decoder_errors():
            samples = self._decode()
            if samples.ndim not in (2, 3) or samples.shape[-1] == 0:
                raise PhotoError("unsupported", f"an animation or planes, {samples.shape}")
            check_size(samples.shape[1], samples.shape[0], self.num_pixels)
            return samples[..., None] if samples.ndim == 2 else samples

    @cached_property
    def _encoding(self) -> Encoding:
        samples = self._samples
        num_samples = samples.shape[2]
        if num_samples > 4:
            raise PhotoError("unsupported", f"{num_samples} channels")
        num_colors = 1 if num_samples < 3 else 3
        to_srgb = None
        if self._profile:
            try:
                to_srgb = rows_to_srgb(self._profile, num_colors)
            except BrokenProfileError:
                self.notes.append(PROFILE_IGNORED)
        is_float = samples.dtype.kind == "f"
        white = white_of_floats([samples]) if is_float else self._white
        return Encoding(
            white=white,
            num_colors=num_colors,
            alpha="straight" if num_samples in (2, 4) else "",
            to_srgb=to_srgb,
            bits=8 if samples.dtype == np.uint8 else 16,
        )


def is_deep_png(head: bytes) -> bool:
    """Return True for a PNG of 16 bits per channel."""
    return len(head) > _PNG_DEPTH and head[_PNG_DEPTH] == 16


def open_deep_png(data: bytes, max_pixels: int, profile: bytes = b"") -> ArrayPicture:
    """Open a PNG of 16 bits; `profile` goes before what Pillow finds."""
    import imagecodecs

    with decoder_errors():
        size = open_unchecked(BytesIO(data), "PNG").size
        check_size(*size, max_pixels)
        bare = Image.open(BytesIO(without_pixels(data)), formats=["PNG"])
        told = profile or profile_of(bare), orientation(bare), read_metadata(bare)
    return ArrayPicture(lambda: imagecodecs.png_decode(data), size, 65535, *told)


def open_deep_jpeg2000(data: bytes, max_pixels: int) -> ArrayPicture:
    """Open a JPEG 2000 of more than 8 bits."""
    import imagecodecs

    with decoder_errors():
        header = open_unchecked(BytesIO(data), "JPEG2000")
        check_size(*header.size, max_pixels)
        if header.mode == "CMYK":
            raise PhotoError("unsupported", "CMYK of 16 bits in JPEG 2000")
    exif, metadata = _boxed_metadata(data)
    white = 2.0 ** jpeg2000_bits(data) - 1

    profile = jpeg2000_profile(data)
    # Where it sees a profile, imagecodecs applies it itself, less exactly: it gets bare samples.
    stream = data[data.index(JPEG2000_STREAM) :] if profile else data

    def decode() -> np.ndarray:
        return imagecodecs.jpeg2k_decode(stream)

    return ArrayPicture(decode, header.size, white, profile, orientation(exif), metadata)


def open_deep_avif(data: bytes, max_pixels: int, bits: int, profile: bytes) -> ArrayPicture:
    """Open an AVIF of 10 or 12 bits."""
    import imagecodecs

    with decoder_errors():
        header = open_unchecked(BytesIO(data), "AVIF")
        check_size(*header.size, max_pixels)
        told = orientation(header), read_metadata(header)

    def decode() -> np.ndarray:
        samples: np.ndarray = imagecodecs.avif_decode(data, index=0, numthreads=1)
        return samples

    picture = ArrayPicture(decode, header.size, 2.0**bits - 1, profile, *told)
    if getattr(header, "n_frames", 1) > 1:
        picture.notes.append(FIRST_FRAME)
    return picture


def open_deep_heif(data: bytes, max_pixels: int, bits: int, profile: bytes) -> ArrayPicture:
    """Open a HEIC of 10 or 12 bits, which libheif turns upright."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    with decoder_errors():
        header = open_unchecked(BytesIO(data), "HEIF")
        check_size(*header.size, max_pixels)
        metadata = read_metadata(header)

    def decode() -> np.ndarray:
        opened = pillow_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=False)
        return np.asarray(opened)

    white = (2.0**bits - 1) * 2 ** (16 - bits)  # its samples are moved up, not scaled
    picture = ArrayPicture(decode, header.size, white, profile, 1, metadata)
    if getattr(header, "n_frames", 1) > 1:
        picture.notes.append(FIRST_FRAME)
    return picture


def open_jpeg_xl(data: bytes, max_pixels: int) -> ArrayPicture:
    """Open a JPEG XL, whose decoder turns it upright."""
    import imagecodecs

    with decoder_errors():
        header = read_jxl_header(data)
        check_size(header.width, header.height, max_pixels)
    profile = header.profile
    if profile is None:
        profile = profile_by_libjxl(data)

    def decode() -> np.ndarray:
        samples: np.ndarray = imagecodecs.jpegxl_decode(data)
        return samples

    _, metadata = _boxed_metadata(data)
    size = (header.width, header.height)
    picture = ArrayPicture(decode, size, 2.0**header.bits - 1, profile or b"", 1, metadata)
    if profile is None:
        picture.notes.append(COLORS_NOT_READ)
    return picture


def _boxed_metadata(data: bytes) -> tuple[Any, Metadata]:
    """Return a picture of no pixels that has the file's EXIF and XMP, and what is kept of them."""
    exif, xmp = exif_and_xmp(data)
    bare = Image.new("L", (1, 1))
    bare.info |= {"exif": exif, "xmp": xmp}
    return bare, read_metadata(bare)
