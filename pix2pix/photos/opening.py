"""A file or its bytes → an opened picture, decoded in this process."""

from io import BytesIO
from pathlib import Path

from pix2pix.photos.boxes import jpeg2000_bits, jpeg2000_profile
from pix2pix.photos.deep import (
    is_deep_png,
    open_deep_jpeg2000,
    open_deep_png,
    open_jpeg_xl,
)
from pix2pix.photos.eight_bits import PillowPicture
from pix2pix.photos.kinds import has_deep_formats
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import READ_AS_8_BITS, Picture
from pix2pix.photos.tiff import TiffPicture


def read_bytes(source: Path | bytes) -> bytes:
    """Return a file's bytes; raises PhotoError unreadable, empty_file."""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise PhotoError("unreadable", message) from error
    if not data:
        raise PhotoError("empty_file", "the file is empty (0 bytes)")
    return data


def open_here(source: Path | bytes, kind: str, max_pixels: int) -> Picture:
    """Open a picture of this kind (`kinds.openable_kind`); nothing is decoded yet.

    16 bits per channel are read where the extra [formats] is installed, else 8 with a note.
    """
    is_deep = has_deep_formats()
    if kind == "TIFF" and is_deep:
        return TiffPicture(source, max_pixels)
    data = read_bytes(source)
    if kind == "JXL":
        return open_jpeg_xl(data, max_pixels)
    if kind == "PNG" and is_deep_png(data[:64]):
        if is_deep:
            return open_deep_png(data, max_pixels)
        return _noted(PillowPicture(BytesIO(data), kind, max_pixels))
    if kind == "JPEG2000":
        if jpeg2000_bits(data) > 8 and is_deep:
            return open_deep_jpeg2000(data, max_pixels)
        return PillowPicture(BytesIO(data), kind, max_pixels, profile=jpeg2000_profile(data))
    if kind == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
        # libheif turns the picture; EXIF says so once more.
        return PillowPicture(BytesIO(data), kind, max_pixels, is_upright=True)
    return PillowPicture(BytesIO(data), kind, max_pixels)


def _noted(picture: PillowPicture) -> PillowPicture:
    if READ_AS_8_BITS not in picture.notes:
        picture.notes.append(READ_AS_8_BITS)
    return picture
