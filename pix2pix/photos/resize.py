"""Photographs reduced to one short side, whole or a square of them, by Lanczos (no torch).

The resize is the costliest step of a pair without SIMD, and a third of the cost with it.
Preparation and a training on photographs as others packed them come through here, so both see the
same pixels.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix.photos.photo import luma, open_to_resize

try:
    from cykooz_resizer import (
        CropBox,
        FilterType,
        ImageData,
        PixelType,
        ResizeAlg,
        ResizeOptions,
        Resizer,
    )
except ImportError:  # not every machine has a wheel of it
    RESIZER = "pillow"
else:
    RESIZER = "cykooz"
    _LANCZOS = ResizeAlg.convolution(FilterType.lanczos3)
    _WHOLE = ResizeOptions(_LANCZOS, use_alpha=False)
    # As Pillow holds them: RGB with a byte beside it, which is copied in half the time.
    _PIXELS = {"L": (PixelType.U8, "L"), "RGB": (PixelType.U8x4, "RGBX")}
    _RESIZER = Resizer()


# A large JPEG is decoded at a fraction that keeps twice the pixels wanted, for the filter.
HEADROOM = 2
_LOBES = 3  # of the filter: how many pixels of the result it sees on either side

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def resize(picture: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """`picture`, mode "L" or "RGB", at `size` (width, height) by Lanczos with three lobes.

    box: the part of it that becomes the result; the filter looks beyond its edges. The bits depend
    on RESIZER, and not on the processor: the arithmetic is on integers.
    """
    if RESIZER == "pillow":
        return picture.resize(size, Image.Resampling.LANCZOS, box)
    options = _WHOLE
    if box is not None:
        picture, box = _cut(picture, size, box)
        left, top, right, bottom = box
        crop = CropBox(left, top, right - left, bottom - top)
        options = ResizeOptions(_LANCZOS, use_alpha=False, crop_box=crop)
    # Copies, 0.1 ms of them: its way of reaching into Pillow's memory depends on Pillow's version.
    pixels, layout = _PIXELS[picture.mode]
    target = ImageData(*size, pixels)
    source = ImageData(*picture.size, pixels, picture.tobytes("raw", layout))
    _RESIZER.resize(source, target, options)
    return Image.frombytes(picture.mode, size, target.get_buffer(), "raw", layout)


def _cut(picture: Image.Image, size: tuple[int, int], box: Box) -> tuple[Image.Image, Box]:
    """Return the part of `picture` that the filter sees, and the box in it: a third less to copy.

    By whole pixels, so that the filter's weights stay the same.
    """
    left, top, right, bottom = box
    across = _LOBES * max(1.0, (right - left) / size[0]) + 1
    down = _LOBES * max(1.0, (bottom - top) / size[1]) + 1
    x, y = max(0, math.floor(left - across)), max(0, math.floor(top - down))
    end = (
        min(picture.width, math.ceil(right + across)),
        min(picture.height, math.ceil(bottom + down)),
    )
    return picture.crop((x, y, *end)), (left - x, top - y, right - x, bottom - y)


def picture_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) of the pictures made of a photograph."""
    scale = short_side / min(width, height)
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def open_square(
    data: bytes, short_side: int, side: int, top: float, left: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a square of the photograph `data`: gray [side, side, 1], color [side, side, 3].

    It is what preparation would have made: reduced to `short_side`, of that the square of `side`
    pixels, `top` and `left` in [0, 1] of the way; the gray is the luma of the reduced picture. Only
    the square is resized. Raises PhotoError as `open_reduced` does.
    """
    photo, size, to_srgb = open_to_resize(data, HEADROOM * short_side)
    width, height = picture_size(*size, short_side)
    y, x = round(top * (height - side)), round(left * (width - side))
    across, down = photo.width / width, photo.height / height
    box = (x * across, y * down, (x + side) * across, (y + side) * down)
    # Rounding must not put the last edge a hair outside of the photograph.
    inside = (*box[:2], min(box[2], photo.width), min(box[3], photo.height))
    color = to_srgb(resize(photo, (side, side), inside))
    if color.mode != "RGB":  # `convert` copies where there is nothing to do
        color = color.convert("RGB")
    return np.asarray(luma(color))[:, :, None], np.asarray(color)
