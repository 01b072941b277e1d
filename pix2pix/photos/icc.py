"""ICC profiles made of a few numbers: for what pictures say of their colors without a profile."""

import struct

import numpy as np

Chromaticities = tuple[float, float, float, float, float, float, float, float]

# x, y of white, red, green, blue.
_D65 = (0.3127, 0.3290)
SRGB_CHROMATICITIES: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_CHROMATICITIES: Chromaticities = (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT_2020_CHROMATICITIES: Chromaticities = (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
_ADOBE_RGB: Chromaticities = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_BT_601_625: Chromaticities = (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)
_BT_601_525: Chromaticities = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_DCI_P3: Chromaticities = (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)

# Code points of ITU-T H.273, which AVIF, HEIC, PNG and JPEG XL name; 2 is "unspecified".
_PRIMARIES = {
    1: SRGB_CHROMATICITIES,
    2: SRGB_CHROMATICITIES,
    5: _BT_601_625,
    6: _BT_601_525,
    7: _BT_601_525,
    9: BT_2020_CHROMATICITIES,
    11: _DCI_P3,
    12: P3_CHROMATICITIES,
}
# Exponents; None is the curve of sRGB, by which browsers show those of BT.601, 709 and 2020, too.
_GAMMAS = {1: None, 2: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None}

_POINTS = 4096  # of a sampled curve
_D50 = (0.9642, 1.0, 0.8249)  # X, Y, Z of the profile connection space
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def adobe_rgb() -> bytes:
    """Return a profile of Adobe RGB (1998), from its specification: chromaticities, 563/256."""
    return rgb_profile(_ADOBE_RGB, 563 / 256)


def profile_of_code_points(primaries: int, transfer: int) -> bytes | None:
    """Return a profile of two code points (ITU-T H.273): b"" for sRGB, None for one not known.

    Those of high dynamic range (PQ, HLG) have no equal among profiles.
    """
    if primaries not in _PRIMARIES or transfer not in _GAMMAS:
        return None
    chromaticities, gamma = _PRIMARIES[primaries], _GAMMAS[transfer]
    if chromaticities == SRGB_CHROMATICITIES and gamma is None:
        return b""
    return rgb_profile(chromaticities, gamma)


def rgb_profile(chromaticities: Chromaticities, gamma: float | None) -> bytes:
    """Return an RGB profile of a matrix and one curve, ICC.1:2001-04 (version 2).

    Args:
        chromaticities: x, y of white, red, green, blue.
        gamma: light is the stored value to this power; None for the curve of sRGB.

    Raises:
        ValueError: the chromaticities span no colors.
    """
    columns = _colorants(chromaticities)
    if gamma is None:
        curve = b"curv" + bytes(4) + struct.pack(">I", _POINTS) + _srgb_curve()
    else:
        curve = b"curv" + bytes(4) + struct.pack(">IH", 1, min(65535, max(1, round(gamma * 256))))
    tags = {b"wtpt": _xyz(_D50)}
    for name, column in zip(b"rgb", columns.T, strict=True):
        tags[bytes([name]) + b"XYZ"] = _xyz(tuple(column))
        tags[bytes([name]) + b"TRC"] = curve
    return _profile(b"RGB ", tags)


def _colorants(chromaticities: Chromaticities) -> np.ndarray:
    """X, Y, Z of full red, green and blue in the columns of [3, 3], adapted to D50 (Bradford)."""
    points = np.array(chromaticities, dtype=np.float64).reshape(4, 2)
    if not np.isfinite(points).all() or (points[:, 1] <= 0).any():
        raise ValueError("chromaticities that are no colors")
    xyz = np.stack([points[:, 0], points[:, 1], 1 - points.sum(1)]) / points[:, 1]
    white, primaries = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(primaries)) < 1e-6:
        raise ValueError("primaries on one line")
    colorants = primaries * np.linalg.solve(primaries, white)
    gains = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ (gains[:, None] * (_BRADFORD @ colorants))


def _srgb_curve() -> bytes:
    """Light of _POINTS stored values, IEC 61966-2-1."""
    stored = np.linspace(0, 1, _POINTS)
    light = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    return np.rint(light * 65535).astype(">u2").tobytes()


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_s15_fixed_16(value) for value in values)


def _s15_fixed_16(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"text" + bytes(4) + b"none\0"
    description = b"matrix and exponent\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(description)) + description + bytes(78),
        b"cprt": text,
        **tags,
    }
    table, data = struct.pack(">I", len(tags)), b""
    first = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", first + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", 128 + len(table + data), bytes(4), 0x02400000, b"mntr",
                         space, b"XYZ ")  # fmt: skip
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += b"".join(_s15_fixed_16(value) for value in _D50)
    return header.ljust(128, b"\0") + table + data
