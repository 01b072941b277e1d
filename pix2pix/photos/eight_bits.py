"""Pictures that Pillow decodes, to upright sRGB of 8 bits: mode "L" or "RGB"."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from pix2pix.photos.icc import SRGB_CHROMATICITIES, adobe_rgb, rgb_profile
from pix2pix.photos.kinds import names_of_kinds
from pix2pix.photos.metadata import Metadata, is_marked_adobe_rgb, orientation, read_metadata
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import (
    FIRST_FRAME,
    PROFILE_IGNORED,
    READ_AS_8_BITS,
    ROWS_MISSING,
    STRIP_PIXELS,
    Page,
    check_size,
)
from pix2pix.photos.profile import BrokenProfileError, may_follow_a_resize, picture_to_srgb
from pix2pix.photos.upright import is_sideways, turn_upright

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0
# Kinds whose further frames are pictures; an MPO's are previews, and others of the same moment.
_OF_FRAMES = frozenset(("GIF", "WEBP", "PNG", "AVIF", "HEIF"))
_SRGB_FILE_GAMMA = 1 / 2.2  # what a PNG of sRGB says, and most others, too
# Entropy-coded data that mean something else than nothing does: no byte of it is a marker's.
_SOME_BITS = bytes(range(1, 255)) * 2
_END = b"\xff\xd9"
_LIMIT_LOCK = Lock()


class PillowPicture:
    """One frame of a file by Pillow.

    short_side: a JPEG comes at 1/2, 1/4 or 1/8 where its short side keeps so many pixels; None
    reads all of it. profile: in place of the one that Pillow finds. is_upright: whatever EXIF says.

    profile_to_apply: of a JPEG read with `short_side`, whose colors are the file's own where that
    can wait until it is resized; b"" where it is in sRGB.
    """

    num_pages = 1

    def __init__(
        self,
        file: Any,
        kind: str,
        max_pixels: int,
        short_side: int | None = None,
        frame: int = 0,
        profile: bytes = b"",
        is_upright: bool = False,
    ) -> None:
        self.notes: list[str] = []
        self.profile_to_apply = b""
        self._file = file
        self._short_side = short_side
        self._picture: Image.Image | None = None
        self._profile = profile
        with decoder_errors():
            self._photo = open_unchecked(file, kind)
            if frame:
                self._photo.seek(frame)
            check_size(*self._photo.size, max_pixels)
        self._size = self._photo.size
        self.num_pixels = self._size[0] * self._size[1]
        self._is_upright = is_upright

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as it is seen, before a reduction."""
        return self._size[::-1] if is_sideways(self.orientation) else self._size

    @cached_property
    def metadata(self) -> Metadata:
        """What the file says beside its pixels; decodes it."""
        self._stored()
        return read_metadata(self._photo)

    @cached_property
    def orientation(self) -> int:
        """EXIF's, 1 to 8; decodes the picture."""
        # A PNG's EXIF may follow its pixels: asked before, Pillow decodes these, and says nothing
        # of damage afterwards.
        self._stored()
        return 1 if self._is_upright else orientation(self._photo)

    def picture(self) -> Image.Image:
        """Return it upright: mode "L" or "RGB", saying nothing that no longer holds."""
        upright = turn_upright(self._stored(), self.orientation)
        upright.info.clear()
        with suppress(Exception):  # a broken EXIF block
            upright.getexif().clear()
        return upright

    def page(self, index: int) -> Page:
        """Decode it, and return its size."""
        picture = self._stored()
        channels = len(picture.getbands())
        return Page(*picture.size, channels, 8, self.orientation)

    def rows(self, index: int) -> Iterator[np.ndarray]:
        """Yield it in strips."""
        picture = self._stored()
        height = max(1, STRIP_PIXELS // picture.width)
        for top in range(0, picture.height, height):
            bottom = min(top + height, picture.height)
            yield np.asarray(picture.crop((0, top, picture.width, bottom)))

    def close(self) -> None:
        """Forget the picture; the file's bytes go with it."""
        self._picture = None

    def _stored(self) -> Image.Image:
        if self._picture is None:
            with decoder_errors():
                photo = self._load()
                if getattr(photo, "n_frames", 1) > 1 and photo.format in _OF_FRAMES:
                    self.notes.append(FIRST_FRAME)
                self._picture = self._in_srgb(photo)
        return self._picture

    def _in_srgb(self, photo: Image.Image) -> Image.Image:
        if self._short_side is not None:
            profile = self._profile or profile_of(photo)
            if profile and may_follow_a_resize(profile, photo.mode):
                self.profile_to_apply = profile
                return photo
        plain: Image.Image = to_8_bits(photo, self._profile, self.notes)
        return plain

    def _load(self) -> Image.Image:
        photo: Image.Image = self._photo
        if self._short_side is not None:
            self._photo.draft(None, (self._short_side,) * 2)  # only a JPEG is reduced
        try:
            photo.load()
        except OSError as error:
            if photo.format not in ("JPEG", "MPO") or not _says_truncated(error):
                raise
            self._file.seek(0)
            photo, rows = complete_jpeg(self._file.read(), self._short_side)
            if rows:
                told = f"{ROWS_MISSING}: about {rows:,} of {photo.height:,}"
                if self._short_side is not None or rows > photo.height // 2:
                    raise PhotoError("truncated", f"the file is cut short; {told}") from None
                self.notes.append(told)
        return photo


def open_unchecked(file: Any, kind: str) -> ImageFile.ImageFile:
    """Open a picture of any size; `check_size` has to follow. Pillow's own limit is not ours."""
    with _LIMIT_LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=[kind])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def complete_jpeg(data: bytes, short_side: int | None) -> tuple[Image.Image, int]:
    """Decode a JPEG without its end: the picture, and how many rows at its bottom are made up.

    The decoder fills what is missing. Where other bits in place of the missing ones change the
    picture, there it begins; where they change nothing, only the end mark is missing. Raises
    OSError where that is not all.
    """
    pictures = []
    for filling in (b"", _SOME_BITS):
        photo = open_unchecked(BytesIO(data + filling + _END), "JPEG")
        if short_side is not None:
            photo.draft(None, (short_side, short_side))
        photo.load()
        pictures.append(photo)
    first, second = (np.asarray(photo) for photo in pictures)
    differs = np.flatnonzero((first != second).reshape(len(first), -1).any(axis=1))
    return pictures[0], len(first) - int(differs[0]) if len(differs) else 0


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn what decoders raise into PhotoError, and keep their warnings quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken EXIF, palettes with transparency, large sizes
        try:
            yield
        except PhotoError:
            raise
        except UnidentifiedImageError:
            message = f"not a picture in one of the formats {names_of_kinds()}"
            raise PhotoError("not_an_image", message) from None
        except MemoryError:
            raise PhotoError("out_of_memory", "decoding takes too much memory") from None
        except Image.DecompressionBombError as error:
            raise PhotoError("too_many_pixels", str(error)) from None
        except Exception as error:  # decoders raise nearly every type on broken input
            reason = "truncated" if _says_truncated(error) else "undecodable"
            raise PhotoError(reason, f"cannot be decoded: {error}") from error


def to_8_bits(photo: Image.Image, profile: bytes = b"", notes: list[str] | None = None) -> Any:
    """Return a picture of any of Pillow's modes as "L" or "RGB", in sRGB and on white.

    Args:
        photo: a decoded picture; it may be changed in place.
        profile: in place of its own.
        notes: gets what was not as it was meant.
    """
    notes = [] if notes is None else notes
    if photo.mode == "F" or photo.mode.startswith("I"):
        if READ_AS_8_BITS not in notes:
            notes.append(READ_AS_8_BITS)
        plain = _scale_depth(photo)
    else:
        plain = _plain_mode(photo)
    profile = profile or profile_of(photo)
    if profile:
        try:
            plain = picture_to_srgb(plain, profile)
        except BrokenProfileError:
            notes.append(PROFILE_IGNORED)
    if plain.mode in ("L", "RGB"):
        return plain
    if plain.mode == "LAB":
        return picture_to_srgb(plain, _lab_profile())
    return _on_white(plain) if plain.mode in ("LA", "RGBA") else plain.convert("RGB")


def _says_truncated(error: Exception) -> bool:
    return "truncated" in str(error).lower()


def _plain_mode(photo: Image.Image) -> Image.Image:
    """One of the modes that profiles speak of: "L", "LA", "RGB", "RGBA", "CMYK", "LAB"."""
    if photo.mode in ("L", "RGB") and "transparency" not in photo.info:
        return photo
    if photo.mode in ("LA", "RGBA", "CMYK", "LAB"):
        return photo
    if photo.mode == "1":
        return photo.convert("L")
    if photo.mode == "La":
        return photo.convert("LA")
    if photo.mode in ("PA", "RGBa") or "transparency" in photo.info:
        return photo.convert("LA" if photo.mode == "L" else "RGBA")
    return photo.convert("RGB")


def profile_of(photo: Image.Image) -> bytes:
    """Return a picture's color profile, or one of what it says of its colors; nothing for sRGB."""
    profile = photo.info.get("icc_profile")
    if profile:
        return profile if isinstance(profile, bytes) else b"broken"
    if photo.mode in ("CMYK", "LAB"):
        return b""
    if photo.format == "PNG" and "srgb" not in photo.info:
        profile = _profile_of_gamma(photo)
        if profile:
            return profile
    return adobe_rgb() if is_marked_adobe_rgb(photo) else b""


def _profile_of_gamma(photo: Image.Image) -> bytes:
    """Return a profile of a PNG's gAMA and cHRM, either of which may be absent."""
    chromaticities = photo.info.get("chromaticity", SRGB_CHROMATICITIES)
    gamma = photo.info.get("gamma", _SRGB_FILE_GAMMA)
    try:
        near = max(abs(a - b) for a, b in zip(chromaticities, SRGB_CHROMATICITIES, strict=True))
        is_usual = abs(gamma - _SRGB_FILE_GAMMA) < 0.02
        if is_usual and near < 0.02:
            return b""
        return rgb_profile(chromaticities, 1 / gamma if "gamma" in photo.info else None)
    except (ValueError, ZeroDivisionError):
        return b"broken"


def _lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def _scale_depth(photo: Image.Image) -> Image.Image:
    """Deep gray to 8 bits by its full range; Pillow's own conversion clips at 255 instead."""
    values = np.nan_to_num(np.asarray(photo).astype(np.float32), posinf=0.0, neginf=0.0)
    highest = float(values.max(initial=0.0))
    if photo.mode == "F":  # floats are stored in [0, 1], or in the range of an integer type
        white = next((w for w in (1.0, 255.0, 65535.0) if highest <= w), highest)
    else:
        bits = _tag(photo, _BITS_PER_SAMPLE) or 16
        # "I" is 32 bits wide, and mostly holds 16: take the depth that the values need.
        white = 2.0 ** (16 if bits > 16 and highest < 2**16 else bits) - 1
    scaled = np.clip(values * (255.0 / white) + 0.5, 0.0, 255.0).astype(np.uint8)
    if _tag(photo, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns only 8 bits around
        scaled = 255 - scaled
    return Image.fromarray(scaled)


def _tag(photo: Image.Image, tag: int) -> int | None:
    """Return what a TIFF says: 12-bit scans come as 16-bit words that never pass 4095."""
    tags = getattr(photo, "tag_v2", None)
    value = tags.get(tag) if tags is not None else None
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else None


def _on_white(photo: Image.Image) -> Image.Image:
    opaque = Image.new("RGBA", photo.size, "white")
    opaque.alpha_composite(photo.convert("RGBA"))
    return opaque.convert("L" if photo.mode == "LA" else "RGB")
