"""EXIF's orientation: pictures and arrays as they are to be seen."""

from typing import Any

import numpy as np
from PIL import Image

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_sideways(orientation: int) -> bool:
    """Return True if width and height change places."""
    return orientation >= 5


def turn_upright(photo: Image.Image, orientation: int) -> Image.Image:
    """Return a picture as it is to be seen."""
    return photo if orientation == 1 else photo.transpose(_TRANSPOSES[orientation])


def as_stored(upright: np.ndarray[Any, Any], orientation: int) -> np.ndarray[Any, Any]:
    """Return a view of the upright pixels [H, W, …] in the order in which the file stores them.

    Rows of the file are put into it, so that no second array of the size is needed.
    """
    view = upright.swapaxes(0, 1) if is_sideways(orientation) else upright
    down, across = orientation in (3, 4, 6, 7), orientation in (2, 3, 7, 8)
    return view[:: -1 if down else 1, :: -1 if across else 1]
