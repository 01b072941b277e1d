"""Photograph → pair of gray and color JPEGs, or the reason why it is left out."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from pix2pix.photos.photo import PhotoError, chroma_spread, luma, open_to_resize
from pix2pix.photos.resize import HEADROOM, picture_size, resize

JPEG_QUALITY = 95
_FULL_CHROMA = 0  # libjpeg's 4:4:4: chroma is what the network learns


@dataclass(frozen=True)
class PairSettings:
    """What makes a pair of a photograph.

    short_side: of the pictures, pixels. min_short_side: of the photograph, pixels; between the two
    it is enlarged. min_chroma: the least `chroma_spread` that counts as color, 0 to 255.
    """

    short_side: int
    min_short_side: int
    min_chroma: float


@dataclass(frozen=True)
class Pair:
    """Two JPEGs of one photograph, `width` x `height` pixels each, and the photograph's own size.

    gray_jpeg: one channel, Rec. 601 luma. color_jpeg: 4:4:4. notes: what was not as it was meant.
    """

    gray_jpeg: bytes
    color_jpeg: bytes
    width: int
    height: int
    photo_width: int
    photo_height: int
    notes: tuple[str, ...] = ()


def make_pair(data: bytes, settings: PairSettings) -> Pair:
    """Return the pair for the photograph whose file is `data`.

    The gray is the luma of the *resized* color picture, so the two agree to the pixel: it is what
    a person's gray photograph of that size would be. Raises PhotoError, with the reason why not:
    those of `open_to_resize`, too_small, near_gray.
    """
    notes: list[str] = []
    photo, (width, height), to_srgb = open_to_resize(data, HEADROOM * settings.short_side, notes)
    if min(width, height) < settings.min_short_side:
        message = f"{width} x {height} pixels; at least {settings.min_short_side} needed"
        raise PhotoError("too_small", message)
    color = to_srgb(resize(photo, picture_size(width, height, settings.short_side)))
    # Measured on the resized picture: there the noise of a gray scan has averaged out.
    spread = chroma_spread(color)
    if spread < settings.min_chroma:
        message = f"chroma spread {spread:.1f} of 255; at least {settings.min_chroma:g} needed"
        raise PhotoError("near_gray", message)
    if color.mode != "RGB":  # single-channel ones come this far when min_chroma is 0
        color = color.convert("RGB")
    return Pair(
        gray_jpeg=_encode(luma(color)),
        color_jpeg=_encode(color),
        width=color.width,
        height=color.height,
        photo_width=width,
        photo_height=height,
        notes=tuple(notes),
    )


def _encode(picture: Image.Image) -> bytes:
    file = BytesIO()
    # A comment of the original would travel along otherwise.
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=_FULL_CHROMA, comment=b"")
    return file.getvalue()
