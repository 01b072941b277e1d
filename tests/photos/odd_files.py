"""Files as scanners, cameras and archives write them, made from arrays by other encoders."""

import io
import struct
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from pix2pix.photos.icc import SRGB_CHROMATICITIES, Chromaticities
from pix2pix.photos.photo import open_picture
from pix2pix.photos.picture import read_upright

P3: Chromaticities = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
# Light of the 256 levels of a gray, per ICC curve: a scanner's raw light, and ink that spreads.
CURVES = {
    "linear": np.linspace(0, 1, 256),
    "gamma22": np.linspace(0, 1, 256) ** 2.2,
    "dotgain": np.clip(1.0 - np.linspace(1, 0, 256) ** 0.72, 0, 1),
}


def ramps(height: int = 40, width: int = 56, channels: int = 1, depth: int = 8) -> np.ndarray:
    """Smooth samples with every level somewhere: [H, W] or [H, W, channels]."""
    y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    planes = [(x + y) / 2, 1 - x, y * x, x * 0.5, 1 - y * 0.7][:channels]
    white = 255 if depth == 8 else 65535
    samples = np.rint(np.dstack(planes) * white).astype(np.uint8 if depth == 8 else np.uint16)
    return samples[..., 0] if channels == 1 else samples


def gray_profile(light: np.ndarray) -> bytes:
    """An ICC profile of gray with a sampled curve, ICC.1:2001-04."""
    table = np.rint(light * 65535).astype(">u2").tobytes()
    return icc(b"GRAY", {b"kTRC": b"curv" + bytes(4) + struct.pack(">I", len(light)) + table})


def cmyk_profile() -> bytes:
    """An ICC profile of four inks: a table of two points a side, to Lab."""
    corners = np.array(
        [[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    )
    left = (1 - corners[:, :3] * 0.85) * (1 - corners[:, 3:] * 0.9)
    L = 100 * left.mean(1)
    a, b = 60 * (left[:, 0] - left[:, 1]), 60 * (left[:, 1] - left[:, 2])
    lab = np.stack([L * 652.8, (a + 128) * 256, (b + 128) * 256], 1)  # version 2, 16 bits
    ramp = np.array([0, 65535], ">u2").tobytes()
    head = b"mft2" + bytes(4) + bytes([4, 3, 2, 0])
    head += b"".join(struct.pack(">i", v) for v in (65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    lut = (
        head + struct.pack(">HH", 2, 2) + 4 * ramp + np.rint(lab).astype(">u2").tobytes() + 3 * ramp
    )
    return icc(b"CMYK", {b"A2B0": lut, b"A2B1": lut}, space=b"Lab ", device=b"prtr")


def icc(
    colors: bytes, tags: dict[bytes, bytes], space: bytes = b"XYZ ", device: bytes = b"mntr"
) -> bytes:
    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    white = (0.9642, 1.0, 0.8249)
    name = b"made by a test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + fixed(*white),
        **tags,
    }
    table, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    size = 128 + len(table) + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, device, colors, space)
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*white)
    return head.ljust(128, b"\0") + table + data


def light_to_srgb(light: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, [0, 1] → [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def gray_as_seen(samples: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Samples in [0, 1] with a curve → sRGB in [0, 1]."""
    return light_to_srgb(np.interp(samples, np.linspace(0, 1, len(light)), light))


def rgb_as_seen(samples: np.ndarray, chromaticities: Chromaticities, gamma: float) -> np.ndarray:
    """Samples in [0, 1] of a matrix and an exponent → sRGB in [0, 1]; both have the white D65."""
    there = np.linalg.inv(_to_xyz(SRGB_CHROMATICITIES)) @ _to_xyz(chromaticities)
    return light_to_srgb(samples**gamma @ there.T)


def _to_xyz(chromaticities: Chromaticities) -> np.ndarray:
    x, y = np.array(chromaticities).reshape(4, 2).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])


def tiff(samples: np.ndarray, orientation: int = 1, profile: bytes = b"", **options: Any) -> bytes:
    """A TIFF by tifffile."""
    file = io.BytesIO()
    byteorder = options.pop("byteorder", "<")
    extra = [(274, 3, 1, orientation, True)]
    gray = samples.ndim == 2
    options = {"photometric": "minisblack" if gray else "rgb", "metadata": None, **options}
    tifffile.imwrite(
        file, samples, byteorder=byteorder, extratags=extra, iccprofile=profile or None, **options
    )
    return file.getvalue()


def by_pillow(
    samples: np.ndarray, kind: str, orientation: int = 1, profile: bytes = b"", **options: Any
) -> bytes:
    """A file of 8 bits by Pillow."""
    mode = options.pop("mode", None)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture = Image.frombuffer(mode, samples.shape[1::-1], samples.tobytes()) if mode else None
    picture = picture or Image.fromarray(samples)
    if profile:
        options["icc_profile"] = profile
    picture.save(file, kind, exif=exif, **options)
    return file.getvalue()


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """As EXIF 2.32 describes its eight values, by turns of arrays."""
    turned = np.rot90(stored, {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(orientation, 0))
    if orientation in (2, 4):
        return turned[:, ::-1]
    return turned[::-1] if orientation in (5, 7) else turned


def opened(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Return the pixels of a file's first picture, upright, and the notes on it."""
    picture = open_picture(data, 10**6)
    try:
        return read_upright(picture, 0), picture.notes
    finally:
        picture.close()
