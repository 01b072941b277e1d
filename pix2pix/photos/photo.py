"""One way to open a photograph, for data preparation and for coloring alike (no torch).

Training and coloring take the gray the same way because both come through here.
"""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

# Only decoders of photographs: a file named .jpg may be anything, and Pillow's EPS plugin, for one,
# would start Ghostscript on it. JPEG opens MPO as well, the container that many cameras write.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")

# 134 million pixels are 400 MB as RGB. Larger photographs are refused: a bomb of 100 KB can claim
# any size. (Pillow warns from 89 million on, and refuses at 179 million.)
MAX_PIXELS = 2**27

_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 258
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}


class PhotoError(ValueError):
    """A photograph that cannot be used.

    reason: a short code to count by: unreadable, empty_file, not_an_image, too_many_pixels,
    truncated, undecodable; data preparation adds its own.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["PhotoError"], tuple[str, str]]:
        return PhotoError, (self.reason, str(self))


def open_photo(source: Path | bytes, max_pixels: int | None = None) -> Image.Image:
    """The photograph as a person sees it: upright, 8 bits, mode "L" or "RGB".

    source: a file, or the bytes of one. 16-bit and float gray is scaled by its depth, transparency
    is laid on white, of an animation the first frame is taken. Color profiles are not applied.
    max_pixels: what has more is refused before it is decoded; MAX_PIXELS where it is not given.
    Raises PhotoError, never a warning: hostile files are somebody's ordinary download.
    """
    return _open(source, None, MAX_PIXELS if max_pixels is None else max_pixels)[0]


def open_reduced(source: Path | bytes, short_side: int) -> tuple[Image.Image, tuple[int, int]]:
    """The photograph as `open_photo` gives it, or smaller, and its own upright (width, height).

    A JPEG comes at 1/2, 1/4 or 1/8 of its size where its short side keeps `short_side` pixels: the
    decoder then makes fewer pixels of each block, and 12 megapixels take a third of the time and a
    sixteenth of the memory. Raises PhotoError as `open_photo` does.
    """
    return _open(source, short_side, MAX_PIXELS)


def luma(photo: Image.Image) -> Image.Image:
    """Rec. 601 luma, mode "L": Pillow's (19595 R + 38470 G + 7471 B + 2^15) / 2^16."""
    return photo.convert("L")


def chroma_spread(photo: Image.Image) -> float:
    """How far a photograph is from gray: mean over pixels of max - min of R, G, B; 0 to 255.

    Of COCO's photographs, 3 % lie under 4: scans of prints, gray pictures stored as color.
    """
    if photo.mode == "L":
        return 0.0
    red, green, blue = (np.asarray(band) for band in photo.split())
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return float((highest - lowest).mean())


def _open(
    source: Path | bytes, short_side: int | None, max_pixels: int
) -> tuple[Image.Image, tuple[int, int]]:
    data = source if isinstance(source, bytes) else _read(source)
    if not data:
        raise PhotoError("empty_file", "the file is empty (0 bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken EXIF, palettes with transparency, large sizes
        try:
            photo, size = _decode(data, short_side, max_pixels)
            turn = _turn_to_upright(photo)
            if turn is not None:
                photo = photo.transpose(turn)
            return _to_8_bits(photo), size[::-1] if turn in _SIDEWAYS else size
        except PhotoError:
            raise
        except UnidentifiedImageError:
            message = f"not a picture in one of the formats {', '.join(FORMATS)}"
            raise PhotoError("not_an_image", message) from None
        except Image.DecompressionBombError as error:
            raise PhotoError("too_many_pixels", str(error)) from None
        except Exception as error:  # decoders raise nearly every type on broken input
            cut_short = "truncated" in str(error).lower()
            reason = "truncated" if cut_short else "undecodable"
            raise PhotoError(reason, f"cannot be decoded: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise PhotoError("unreadable", message) from error


def _decode(
    data: bytes, short_side: int | None, max_pixels: int
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as it lies in the file, or reduced, and its (width, height) in the file."""
    photo = Image.open(BytesIO(data), formats=FORMATS)
    size = photo.size
    if photo.width * photo.height > max_pixels:
        message = f"{photo.width} x {photo.height} pixels; at most {max_pixels:,} are opened"
        raise PhotoError("too_many_pixels", message)
    if short_side is not None:
        photo.draft(None, (short_side, short_side))  # does nothing where it is not a JPEG
    photo.load()
    return photo, size


def _turn_to_upright(photo: Image.Image) -> Image.Transpose | None:
    try:
        orientation = photo.getexif().get(_ORIENTATION_TAG)
    except Exception:  # a broken EXIF block says nothing about the picture
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _to_8_bits(photo: Image.Image) -> Image.Image:
    if photo.mode in ("L", "RGB") and "transparency" not in photo.info:
        return photo
    if photo.mode == "F" or photo.mode.startswith("I"):
        return _scale_depth(photo)
    if photo.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in photo.info:
        return _on_white(photo)
    return photo.convert("L" if photo.mode == "1" else "RGB")


def _scale_depth(photo: Image.Image) -> Image.Image:
    """Deep gray to 8 bits by its full range; Pillow's own conversion clips at 255 instead."""
    values = np.nan_to_num(np.asarray(photo).astype(np.float64), posinf=0.0, neginf=0.0)
    highest = float(values.max(initial=0.0))
    if photo.mode == "F":  # floats are stored in [0, 1], or in the range of an integer type
        white = next((w for w in (1.0, 255.0, 65535.0) if highest <= w), highest)
    else:
        bits = _bits_per_sample(photo) or 16
        # "I" is 32 bits wide, and mostly holds 16: take the depth that the values need.
        white = 2.0 ** (16 if bits > 16 and highest < 2**16 else bits) - 1
    scaled = np.clip(values * (255.0 / white) + 0.5, 0.0, 255.0)
    return Image.fromarray(scaled.astype(np.uint8), mode="L")


def _bits_per_sample(photo: Image.Image) -> int | None:
    """What a TIFF says: 12-bit scans come as 16-bit words that never pass 4095."""
    tags = getattr(photo, "tag_v2", None)
    bits = tags.get(_BITS_PER_SAMPLE_TAG) if tags is not None else None
    return int(bits[0]) if bits else None


def _on_white(photo: Image.Image) -> Image.Image:
    gray = photo.mode in ("L", "LA", "La")
    opaque = Image.new("RGBA", photo.size, "white")
    opaque.alpha_composite(photo.convert("RGBA"))
    return opaque.convert("L" if gray else "RGB")
