"""What a JPEG XL codestream says of itself (ISO/IEC 18181-1): size, depth, and its colors.

imagecodecs gives the samples alone: their size has to be known before they are decoded.
"""

from dataclasses import dataclass

from pix2pix.photos.boxes import boxes
from pix2pix.photos.icc import (
    BT_2020_CHROMATICITIES,
    P3_CHROMATICITIES,
    SRGB_CHROMATICITIES,
    rgb_profile,
)

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA, _XYB, _GRAY = 0, 2, 1
_D65 = 1
_PRIMARIES = {1: SRGB_CHROMATICITIES, 9: BT_2020_CHROMATICITIES, 11: P3_CHROMATICITIES}
_GAMMAS = {8: 1.0, 13: None}  # linear light, the curve of sRGB
_GAMMA_UNIT = 1e-7


@dataclass(frozen=True)
class JXLHeader:
    """Size as stored, bits per channel, and the color profile (b"": sRGB; None: not known)."""

    width: int
    height: int
    bits: int
    profile: bytes | None


def read_jxl_header(data: bytes) -> JXLHeader:
    """Return the header of a file, bare or in a container; raises ValueError, IndexError."""
    stream = data
    if not data.startswith(b"\xff\x0a"):
        parts = {b"jxlc": 0, b"jxlp": 4}
        found = (content[parts[kind] :] for kind, content in boxes(data) if kind in parts)
        stream = next(found, b"")
    if not stream.startswith(b"\xff\x0a"):
        raise ValueError("no codestream of JPEG XL")
    bits = _Bits(stream[2:2050])
    width, height = _size(bits)
    if bits.take(1):  # all default
        return JXLHeader(width, height, 8, b"")
    if bits.take(1):  # extra fields
        bits.take(3)  # orientation, which the decoder applies
        if bits.take(1):
            _size(bits)
        if bits.take(1) or bits.take(1):  # preview, animation
            return JXLHeader(width, height, 16, None)
    depth = _depth(bits)
    bits.take(1)
    for _ in range(bits.u32((0, 0), (1, 0), (2, 4), (1, 12))):
        if not _skip_alpha(bits):
            return JXLHeader(width, height, depth, None)
    bits.take(1)  # XYB
    return JXLHeader(width, height, depth, _profile(bits))


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "little")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        """Take the next bits, the lowest first."""
        if count > self.left:
            raise ValueError("the header is cut short")
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        self.left -= count
        return taken

    def u32(self, *choices: tuple[int, int]) -> int:
        """One of four (offset, bits), by two bits."""
        offset, count = choices[self.take(2)]
        return offset + self.take(count)

    def enum(self) -> int:
        return self.u32((0, 0), (1, 0), (2, 4), (18, 6))


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        if small:
            return 8 * (bits.take(5) + 1)
        return 1 + bits.u32((0, 9), (0, 13), (0, 18), (0, 30))

    height = side()
    ratio = bits.take(3)
    if ratio == 0:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _depth(bits: _Bits) -> int:
    if bits.take(1):  # floats
        depth = bits.u32((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
        return depth
    return bits.u32((8, 0), (10, 0), (12, 0), (1, 6))


def _skip_alpha(bits: _Bits) -> bool:
    """Skip an extra channel; False where it is none that can be skipped."""
    if bits.take(1):
        return True
    if bits.enum() != _ALPHA:
        return False
    _depth(bits)
    bits.u32((0, 0), (3, 0), (4, 0), (1, 3))
    bits.take(8 * bits.u32((0, 0), (0, 4), (16, 5), (48, 10)))  # its name
    bits.take(1)
    return True


def _profile(bits: _Bits) -> bytes | None:
    """Return the color encoding as an ICC profile; None for others (`jxl_profile.py`)."""
    if bits.take(1):  # all default
        return b""
    if bits.take(1):  # an ICC profile
        return None
    space = bits.enum()
    if space == _XYB or bits.enum() != _D65:
        return None
    primaries = 1 if space == _GRAY else bits.enum()
    if primaries not in _PRIMARIES:
        return None
    if bits.take(1):
        exponent = bits.take(24) * _GAMMA_UNIT
        return rgb_profile(_PRIMARIES[primaries], 1 / exponent) if exponent > 0.1 else None
    curve = bits.enum()
    if curve not in _GAMMAS:
        return None
    if primaries == 1 and _GAMMAS[curve] is None:
        return b""
    return rgb_profile(_PRIMARIES[primaries], _GAMMAS[curve])
