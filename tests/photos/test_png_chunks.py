"""What a PNG says of its colors: code points (cICP), profile, gamma, chromaticities."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest

from pix2pix.photos.icc import rgb_profile
from pix2pix.photos.photo import open_picture
from pix2pix.photos.picture import COLORS_NOT_READ, read_upright
from pix2pix.photos.png_chunks import chunk, insert_chunks
from tests.photos.odd_files import ADOBE, P3, light_to_srgb, ramps, rgb_as_seen

DISPLAY_P3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
SRGB = chunk(b"cICP", bytes([1, 13, 0, 1]))
PQ = chunk(b"cICP", bytes([9, 16, 0, 1]))
PROFILE = chunk(b"iCCP", b"test\0\0" + zlib.compress(rgb_profile(ADOBE, 563 / 256)))
LINEAR = chunk(b"gAMA", struct.pack(">I", 100_000))
CHROMATICITIES = chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in P3)))


def opened(chunks: bytes, depth: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pixels in [0, 1], samples in [0, 1], notes."""
    samples = ramps(channels=3, depth=depth)
    picture = open_picture(insert_chunks(bytes(imagecodecs.png_encode(samples)), chunks), 10**6)
    white = np.iinfo(samples.dtype).max
    return read_upright(picture, 0) / white, samples / white, picture.notes


def of_p3(stored: np.ndarray) -> np.ndarray:
    light = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    return rgb_as_seen(light, P3, 1.0)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("told", [DISPLAY_P3, DISPLAY_P3 + LINEAR, PROFILE + DISPLAY_P3])
def test_code_points_go_before_profile_and_gamma(told: bytes, depth: int) -> None:
    pixels, samples, notes = opened(told, depth)
    assert np.abs(pixels - of_p3(samples)).max() < 3 / 255
    assert notes == []


@pytest.mark.parametrize("depth", [8, 16])
def test_code_points_of_srgb_change_nothing(depth: int) -> None:
    pixels, samples, _ = opened(SRGB + LINEAR, depth)
    assert np.abs(pixels - samples).max() < 1 / 255


@pytest.mark.parametrize("depth", [8, 16])
def test_code_points_that_have_no_profile_are_counted(depth: int) -> None:
    assert opened(PQ, depth)[2] == [COLORS_NOT_READ]


@pytest.mark.parametrize("depth", [8, 16])
def test_chromaticities_count_without_a_gamma(depth: int) -> None:
    pixels, samples, _ = opened(CHROMATICITIES, depth)
    assert np.abs(pixels - of_p3(samples)).max() < 3 / 255


@pytest.mark.parametrize("depth", [8, 16])
def test_a_gamma_counts_without_chromaticities(depth: int) -> None:
    pixels, samples, _ = opened(LINEAR, depth)
    assert np.abs(pixels - light_to_srgb(samples)).max() < 2 / 255
