"""The compressed ICC profile of a JPEG XL; libjxl puts it in when it wraps a JPEG without loss."""

import imagecodecs
import numpy as np
import pytest

from pix2pix.photos import jxl_profile
from pix2pix.photos.icc import rgb_profile
from pix2pix.photos.picture import COLORS_NOT_READ, read_upright
from tests.photos.odd_files import (
    ADOBE,
    CURVES,
    by_pillow,
    gray_as_seen,
    gray_profile,
    opened,
    ramps,
)
from tests.photos.odd_files import rgb_as_seen as color_as_seen


def wrapped(channels: int, profile: bytes) -> tuple[bytes, np.ndarray]:
    """A JPEG XL, and the samples of its JPEG in [0, 1]."""
    data = by_pillow(ramps(channels=channels), "JPEG", 1, profile, quality=97, subsampling=0)
    return bytes(imagecodecs.jpegxl_encode_jpeg(data)), imagecodecs.jpeg8_decode(data) / 255


def test_a_profile_of_color_is_applied() -> None:
    data, stored = wrapped(3, rgb_profile(ADOBE, 563 / 256))
    pixels, notes = opened(data)
    assert np.abs(pixels / 255 - color_as_seen(stored, ADOBE, 563 / 256)).mean() < 1 / 255
    assert np.abs(pixels / 255 - stored).mean() > 2 / 255
    assert notes == []


def test_a_profile_of_gray_is_applied() -> None:
    data, stored = wrapped(1, gray_profile(CURVES["linear"]))
    pixels, notes = opened(data)
    assert np.abs(pixels / 255 - gray_as_seen(stored, CURVES["linear"])).mean() < 2 / 255
    assert notes == []


def test_where_libjxl_cannot_be_asked_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from pix2pix.photos.opening import open_here

    monkeypatch.setattr(jxl_profile, "_library", lambda: None)
    data, stored = wrapped(3, rgb_profile(ADOBE, 563 / 256))
    picture = open_here(data, "JXL", 10**6)
    assert np.abs(read_upright(picture, 0) / 255 - stored).mean() < 1 / 255
    assert picture.notes == [COLORS_NOT_READ]


def test_damaged_files_have_no_profile() -> None:
    data, _ = wrapped(3, rgb_profile(ADOBE, 563 / 256))
    assert jxl_profile.profile_by_libjxl(data)
    assert jxl_profile.profile_by_libjxl(data[:40]) is None
    assert jxl_profile.profile_by_libjxl(b"\xff\x0a" + bytes(200)) is None
