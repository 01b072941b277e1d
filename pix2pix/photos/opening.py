"""A file or its bytes → an opened picture, decoded in this process."""

from io import BytesIO
from pathlib import Path

from pix2pix.photos.boxes import jpeg2000_bits, jpeg2000_profile
from pix2pix.photos.deep import (
    is_deep_png,
    open_deep_avif,
    open_deep_heif,
    open_deep_jpeg2000,
    open_deep_png,
    open_jpeg_xl,
)
from pix2pix.photos.eight_bits import PillowPicture
from pix2pix.photos.heif_items import bits_of, picture_properties, profile_of_properties
from pix2pix.photos.kinds import has_deep_formats
from pix2pix.photos.netpbm import NetpbmPicture, read_header
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import COLORS_NOT_READ, READ_AS_8_BITS, Picture
from pix2pix.photos.png_chunks import profile_of_cicp
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

    More than 8 bits per channel are read where the extra [formats] is installed, else 8 with a
    note. Where the file says of its colors what cannot be honored, there is a note, too.
    """
    if kind == "TIFF" and has_deep_formats():
        return TiffPicture(source, max_pixels)
    data = read_bytes(source)
    if kind == "JXL":
        return open_jpeg_xl(data, max_pixels)
    if kind == "PNG":
        return _open_png(data, max_pixels)
    if kind == "PPM":
        return _open_netpbm(data, max_pixels)
    if kind == "JPEG2000":
        if jpeg2000_bits(data) > 8 and has_deep_formats():
            return open_deep_jpeg2000(data, max_pixels)
        return PillowPicture(BytesIO(data), kind, max_pixels, profile=jpeg2000_profile(data))
    if kind in ("AVIF", "HEIF"):
        return _open_heif(data, kind, max_pixels)
    return PillowPicture(BytesIO(data), kind, max_pixels)


def _open_png(data: bytes, max_pixels: int) -> Picture:
    is_deep, profile = is_deep_png(data[:64]), profile_of_cicp(data)
    if is_deep and has_deep_formats():
        picture: Picture = open_deep_png(data, max_pixels, profile or b"")
    else:
        picture = PillowPicture(BytesIO(data), "PNG", max_pixels, profile=profile or b"")
        _note(picture, READ_AS_8_BITS, is_deep)
    _note(picture, COLORS_NOT_READ, profile is None)
    return picture


def _open_netpbm(data: bytes, max_pixels: int) -> Picture:
    header = read_header(data)
    if header is not None and not header.is_usual:
        return NetpbmPicture(data, header, max_pixels, has_deep_formats())
    return PillowPicture(BytesIO(data), "PPM", max_pixels)


def _open_heif(data: bytes, kind: str, max_pixels: int) -> Picture:
    properties = picture_properties(data)
    is_deep, profile = bits_of(properties) > 8, profile_of_properties(properties)
    if is_deep and has_deep_formats():
        open_deep = open_deep_avif if kind == "AVIF" else open_deep_heif
        picture: Picture = open_deep(data, max_pixels, bits_of(properties), profile or b"")
    else:
        picture = _open_shallow_heif(data, kind, max_pixels, profile or b"")
        _note(picture, READ_AS_8_BITS, is_deep)
    _note(picture, COLORS_NOT_READ, profile is None)
    return picture


def _open_shallow_heif(data: bytes, kind: str, max_pixels: int, profile: bytes) -> PillowPicture:
    if kind == "AVIF":
        return PillowPicture(BytesIO(data), kind, max_pixels, profile=profile)
    from pillow_heif import register_heif_opener

    register_heif_opener()
    # libheif turns the picture; EXIF says so once more.
    return PillowPicture(BytesIO(data), kind, max_pixels, profile=profile, is_upright=True)


def _note(picture: Picture, note: str, holds: bool) -> None:
    if holds and note not in picture.notes:
        picture.notes.append(note)
