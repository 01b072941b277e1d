"""The contrast of faded prints: which a gray picture has, and how it is restored (no torch)."""

from itertools import accumulate

import numpy as np
from PIL import Image

_SHARE_CUT = 0.005  # at each end, for specks of dust and the corners of a frame
_FADED = 150 / 255  # of the photographs that a network learns from, about 2 in 100 have less
_EMPTY = 16 / 255  # within so few levels there is no picture to restore, only noise


def is_faded(gray: Image.Image) -> bool:
    """Whether a picture of mode "L" has less contrast than photographs have; not if it has none."""
    return _EMPTY <= contrast(gray) < _FADED


def contrast(gray: Image.Image) -> float:
    """Return the share of the 256 levels that a picture of mode "L" makes use of, 0 to 1."""
    black, white = black_and_white(gray)
    return (white - black) / 255


def stretch_contrast(gray: Image.Image) -> Image.Image:
    """Return a picture of mode "L" from black to white; one that is all but empty stays."""
    if contrast(gray) < _EMPTY:
        return gray
    black, white = black_and_white(gray)
    gain = 255 / (white - black)
    return gray.point([min(255, max(0, round((level - black) * gain))) for level in range(256)])


def black_and_white(gray: Image.Image) -> tuple[int, int]:
    """Return the levels of mode "L" below and above which lie 0.5 % of the pixels each."""
    counts = gray.histogram()
    cut = _SHARE_CUT * sum(counts)
    black = next(level for level, count in enumerate(accumulate(counts)) if count > cut)
    above = next(level for level, count in enumerate(accumulate(counts[::-1])) if count > cut)
    return black, 255 - above


def stretch_array(gray: np.ndarray, shown: Image.Image) -> np.ndarray:
    """Return luma, [H, W] of uint8 or uint16, from black to white.

    Args:
        gray: the luma.
        shown: the same in mode "L", which black and white are taken from.
    """
    if contrast(shown) < _EMPTY:
        return gray
    black, white = black_and_white(shown)
    scale = np.iinfo(gray.dtype).max / 255
    levels = np.arange(np.iinfo(gray.dtype).max + 1) / scale
    stretched = np.clip((levels - black) * (255 / (white - black)), 0, 255) * scale
    return np.rint(stretched).astype(gray.dtype)[gray]
