"""Rows of samples as files store them → rows of gray or RGB in sRGB, 8 or 16 bits per channel."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pix2pix.photos.profile import RowsToSRGB

_WHITE = 65535


@dataclass(frozen=True)
class Encoding:
    """What the samples of a file mean.

    Attributes:
        white: the sample that is full, and black is 0.
        is_inverted: 0 is white instead.
        num_colors: 1 (gray), 3 (RGB) or 4 (CMYK); samples beyond are alpha, or unknown.
        alpha: "straight", "premultiplied", or "" for no alpha.
        to_srgb: the color profile; None takes the colors as sRGB.
        bits: per channel of the result, 8 or 16.
    """

    white: float
    is_inverted: bool = False
    num_colors: int = 1
    alpha: str = ""
    to_srgb: RowsToSRGB | None = None
    bits: int = 16

    @property
    def channels(self) -> int:
        """Of the result: 1 or 3."""
        return 1 if self.num_colors == 1 else 3


def decode_rows(samples: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Return [rows, W, samples] as sRGB on white: [rows, W] or [rows, W, 3], uint8 or uint16."""
    values = _to_16_bits(samples[..., : encoding.num_colors], encoding.white)
    opacity = None
    if encoding.alpha and samples.shape[-1] > encoding.num_colors:
        opacity = _to_16_bits(samples[..., encoding.num_colors], encoding.white)
        opacity = opacity[..., None].astype(np.float32) / _WHITE
    if opacity is not None and encoding.alpha == "premultiplied":
        straight = values / np.maximum(opacity, 1e-6)
        values = np.minimum(straight + 0.5, _WHITE).astype(np.uint16)
    if encoding.is_inverted:
        values = _WHITE - values
    colors = _to_srgb(values, encoding)
    if opacity is not None:
        opacity = opacity[..., 0] if colors.ndim == 2 else opacity
        colors = (colors * opacity + _WHITE * (1 - opacity) + 0.5).astype(np.uint16)
    return to_8_bits(colors) if encoding.bits == 8 else colors


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Return pixels of 16 bits at 8, rounded; those of 8 bits as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    rounded = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), 256):  # in strips: the sum needs 32 bits
        strip = pixels[top : top + 256].astype(np.uint32)
        rounded[top : top + 256] = (strip + 128) // 257
    return rounded


def luma_of_rows(rows: np.ndarray) -> np.ndarray:
    """Return Rec. 601 luma of [rows, W] or [rows, W, 3] at its own depth, as Pillow computes it."""
    if rows.ndim == 2:
        return rows
    weighted = rows[..., 0] * np.uint32(19595)
    weighted += rows[..., 1] * np.uint32(38470)
    weighted += rows[..., 2] * np.uint32(7471)
    weighted += np.uint32(2**15)
    weighted >>= np.uint32(16)
    return weighted.astype(rows.dtype)


def white_of_floats(strips: Iterable[np.ndarray]) -> float:
    """Return what full white is: floats are stored in [0, 1] or in the range of an integer type."""
    highest = 0.0
    for strip in strips:
        finite = strip[np.isfinite(strip)]
        highest = max(highest, float(finite.max(initial=0.0)))
    return next((white for white in (1.0, 255.0, 65535.0) if highest <= white), highest)


def _to_16_bits(samples: np.ndarray, white: float) -> np.ndarray:
    if samples.dtype == np.uint16 and white == _WHITE:
        return samples
    if samples.dtype == np.uint8 and white == 255:
        return samples.astype(np.uint16) * np.uint16(257)
    scaled = np.nan_to_num(samples.astype(np.float64), posinf=white, neginf=0.0)
    return np.clip(scaled * (_WHITE / white) + 0.5, 0, _WHITE).astype(np.uint16)


def _to_srgb(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    if encoding.num_colors == 1:
        gray = values[..., 0]
        return encoding.to_srgb(gray) if encoding.to_srgb else gray
    if encoding.to_srgb:
        return encoding.to_srgb(values)
    if encoding.num_colors == 4:  # ink without a profile: what it leaves of the light
        light = (_WHITE - values).astype(np.uint32)
        return (light[..., :3] * light[..., 3:] // _WHITE).astype(np.uint16)
    return values
