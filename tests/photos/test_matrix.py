"""Format × mode × depth × profile × orientation: each file, made and read by others, opens alike.

What is expected comes from the samples as tifffile or imagecodecs read them, and from formulas of
color in NumPy. Tolerance: 2 of 255 at 8 bits, 80 of 65,535 (a third of a level of 8 bits) at 16; of
lossy formats the mean error.
"""

import io
from itertools import product
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import features

from pix2pix.photos.icc import rgb_profile
from pix2pix.photos.photo import open_photo, open_picture
from pix2pix.photos.picture import PROFILE_IGNORED, Picture, read_gray
from pix2pix.photos.png_chunks import chunk, insert_chunks
from tests.photos.odd_files import (
    ADOBE,
    CURVES,
    P3,
    by_pillow,
    cmyk_profile,
    gray_as_seen,
    gray_profile,
    light_to_srgb,
    opened,
    ramps,
    rgb_as_seen,
    tiff,
    upright,
)

TOLERANCE = {np.dtype(np.uint8): 2 / 255, np.dtype(np.uint16): 80 / 65535}
RGB_PROFILES = {"adobe": (ADOBE, 563 / 256), "p3": (P3, 563 / 256)}


def to_unit(samples: np.ndarray) -> np.ndarray:
    return samples / np.iinfo(samples.dtype).max


def as_seen(samples: np.ndarray, profile: str) -> np.ndarray:
    """Samples in [0, 1] as sRGB in [0, 1]."""
    if profile in CURVES:
        return gray_as_seen(samples, CURVES[profile])
    return rgb_as_seen(samples, *RGB_PROFILES[profile]) if profile in RGB_PROFILES else samples


def profile_bytes(profile: str) -> bytes:
    if profile in CURVES:
        return gray_profile(CURVES[profile])
    if profile in RGB_PROFILES:
        return rgb_profile(*RGB_PROFILES[profile])
    return {"none": b"", "broken": b"no profile" * 20}[profile]


def check(data: bytes, expected: np.ndarray, dtype: Any, profile: str = "none") -> None:
    """expected: upright, in [0, 1]."""
    pixels, notes = opened(data)
    assert pixels.dtype == dtype
    assert pixels.shape == expected.shape
    assert np.abs(to_unit(pixels) - expected).max() <= TOLERANCE[pixels.dtype]
    assert notes == ([PROFILE_IGNORED] if profile == "broken" else [])
    small = np.asarray(open_photo(data))
    assert small.shape == expected.shape
    assert np.abs(to_unit(small) - expected).max() <= TOLERANCE[small.dtype]


GRAYS = list(product(["u1", "u2", "f4"], ["none", *CURVES, "broken"], [1, 3, 6, 8]))


@pytest.mark.parametrize(("kind", "profile", "orientation"), GRAYS)
def test_gray_tiff(kind: str, profile: str, orientation: int) -> None:
    samples = ramps(depth=8 if kind == "u1" else 16)
    stored = to_unit(samples).astype(np.float32) if kind == "f4" else samples
    data = tiff(stored, orientation, profile_bytes(profile))
    read = tifffile.imread(io.BytesIO(data))
    unit = read.astype(np.float64) if kind == "f4" else to_unit(read)
    expected = upright(as_seen(unit, profile), orientation)
    check(data, expected, np.uint8 if kind == "u1" else np.uint16, profile)


COLORS = list(product([8, 16], ["none", *RGB_PROFILES, "broken"], range(1, 9)))


@pytest.mark.parametrize(("depth", "profile", "orientation"), COLORS)
def test_color_tiff(depth: int, profile: str, orientation: int) -> None:
    data = tiff(ramps(channels=3, depth=depth), orientation, profile_bytes(profile))
    samples = tifffile.imread(io.BytesIO(data))
    expected = upright(as_seen(to_unit(samples), profile), orientation)
    check(data, expected, samples.dtype, profile)


LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 7},
    "lzw": {"compression": "lzw", "predictor": True, "rowsperstrip": 9},
    "tiles": {"tile": (16, 32), "compression": "zlib"},
    "planes": {"planarconfig": "separate", "rowsperstrip": 11},
    "planes of tiles": {"planarconfig": "separate", "tile": (16, 16), "compression": "lzw"},
    "big": {"bigtiff": True},
    "packbits": {"compression": "packbits"},
}
FILES = [
    (name, depth, order, channels)
    for name, depth, order, channels in product(LAYOUTS, [8, 16], "<>", [1, 3])
    if channels == 3 or not name.startswith("planes")
]


@pytest.mark.parametrize(("layout", "depth", "byteorder", "channels"), FILES)
def test_layouts_of_tiff(layout: str, depth: int, byteorder: str, channels: int) -> None:
    samples = ramps(channels=channels, depth=depth)
    options = dict(LAYOUTS[layout])
    stored = np.moveaxis(samples, 2, 0) if layout.startswith("planes") else samples
    if layout == "big":
        file = io.BytesIO()
        tifffile.imwrite(file, stored, metadata=None, byteorder=byteorder, **options)
        data = file.getvalue()
    else:
        data = tiff(stored, byteorder=byteorder, **options)
    check(data, to_unit(samples), samples.dtype)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("byteorder", "<>")
def test_white_at_zero(depth: int, byteorder: str) -> None:
    samples = ramps(depth=depth)
    data = tiff(samples, photometric="miniswhite", byteorder=byteorder)
    check(data, 1 - to_unit(samples), samples.dtype)


PNGS = list(product([1, 2, 3, 4], [8, 16], [False, True], [1, 6]))


@pytest.mark.parametrize(("channels", "depth", "with_profile", "orientation"), PNGS)
def test_png(channels: int, depth: int, with_profile: bool, orientation: int) -> None:
    profile = "none" if not with_profile else "linear" if channels < 3 else "adobe"
    data = imagecodecs.png_encode(ramps(channels=channels, depth=depth))
    told = chunk(
        b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0" + bytes([orientation, *bytes(7)])
    )
    if with_profile:
        told += chunk(b"iCCP", b"test\0\0" + imagecodecs.zlib_encode(profile_bytes(profile)))
    samples = imagecodecs.png_decode(data)
    unit = to_unit(samples)
    colors = unit if channels in (1, 3) else unit[..., 0] if channels == 2 else unit[..., :3]
    expected = as_seen(colors, profile)
    if channels in (2, 4):
        opacity = unit[..., -1] if channels == 2 else unit[..., -1:]
        expected = expected * opacity + 1 - opacity
    check(insert_chunks(data, told), upright(expected, orientation), samples.dtype)


JPEGS = [*product(["L"], ["none", *CURVES, "broken"], [1, 6])]
JPEGS += [*product(["RGB"], ["none", *RGB_PROFILES, "broken"], range(1, 9))]


@pytest.mark.parametrize(("mode", "profile", "orientation"), JPEGS)
def test_jpeg(mode: str, profile: str, orientation: int) -> None:
    samples = ramps(channels=1 if mode == "L" else 3)
    data = by_pillow(
        samples, "JPEG", orientation, profile_bytes(profile), quality=97, subsampling=0
    )
    unit = to_unit(imagecodecs.jpeg8_decode(data))
    check(data, upright(as_seen(unit, profile), orientation), np.uint8, profile)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
@pytest.mark.parametrize("with_profile", [False, True])
def test_inks(kind: str, with_profile: bool) -> None:
    samples = ramps(channels=4)
    profile = cmyk_profile() if with_profile else b""
    data = by_pillow(
        samples, kind, 1, profile, mode="CMYK", **({"quality": 99} if kind == "JPEG" else {})
    )
    stored = samples.astype(np.uint8)
    if with_profile:
        cms = imagecodecs.CMS
        expected = imagecodecs.cms_transform(
            stored, profile, imagecodecs.cms_profile("srgb"), colorspace="cmyk",
            outcolorspace="rgb", outdtype="uint8", intent=cms.INTENT.RELATIVE_COLORIMETRIC,
            flags=cms.FLAGS.BLACKPOINTCOMPENSATION | cms.FLAGS.NOOPTIMIZE,
        ) / 255  # fmt: skip
    else:
        left = 1 - to_unit(stored)
        expected = left[..., :3] * left[..., 3:]
    pixels, notes = opened(data)
    assert notes == []
    assert np.abs(to_unit(pixels) - expected).mean() <= 2 / 255


def test_deep_inks() -> None:
    samples = ramps(channels=4, depth=16)
    left = 1 - to_unit(samples)
    data = tiff(samples, photometric="separated")
    check(data, left[..., :3] * left[..., 3:], np.uint16)


LOSSY = [("WEBP", {"lossless": True}), ("AVIF", {"quality": 100}), ("HEIF", {})]


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("profile", ["none", "adobe"])
@pytest.mark.parametrize(("kind", "options"), LOSSY)
def test_formats_of_phones_and_archives(
    kind: str, options: dict[str, Any], profile: str, orientation: int
) -> None:
    if kind == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
        orientation = 1  # what EXIF says of it does not count (ISO 23008-12)
    assert kind != "AVIF" or features.check("avif")
    samples = ramps(channels=3)
    data = by_pillow(samples, kind, orientation, profile_bytes(profile), **options)
    expected = upright(as_seen(to_unit(samples), profile), orientation)
    pixels, notes = opened(data)
    assert notes == []
    assert pixels.shape == expected.shape
    assert np.abs(to_unit(pixels) - expected).mean() < 3 / 255


WHOLE = list(product(["jpegxl", "jpeg2k"], [8, 16], [1, 3]))


@pytest.mark.parametrize(("codec", "depth", "channels"), WHOLE)
def test_formats_without_loss(codec: str, depth: int, channels: int) -> None:
    samples = ramps(channels=channels, depth=depth)
    encode = getattr(imagecodecs, f"{codec}_encode")
    data = encode(samples, **({"lossless": True} if codec == "jpegxl" else {"reversible": True}))
    unit = to_unit(samples)
    if codec == "jpegxl" and depth == 16:  # such files of imagecodecs say that they hold light
        unit = light_to_srgb(unit)
    check(bytes(data), unit, samples.dtype)


def test_luma_is_the_same_at_both_depths() -> None:
    deep = ramps(channels=3, depth=16)
    shallow = np.rint(deep / 257).astype(np.uint8)

    def gray(data: bytes) -> np.ndarray:
        picture: Picture = open_picture(data, 10**6)
        luma = read_gray(picture, 0)
        picture.close()
        return luma

    fine, coarse = gray(tiff(deep)), gray(tiff(shallow))
    assert (fine.dtype, coarse.dtype) == (np.uint16, np.uint8)
    assert np.abs(fine / 257 - coarse).max() <= 1
    assert np.abs(to_unit(fine) - to_unit(deep) @ [0.299, 0.587, 0.114]).max() < 1e-4


def test_the_matrix_has_at_least_150_combinations() -> None:
    tables = (GRAYS, COLORS, FILES, PNGS, JPEGS, WHOLE)
    assert sum(map(len, tables)) >= 150
