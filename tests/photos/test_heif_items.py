"""Depth and colors of AVIF and HEIC files, which other encoders write and describe."""

import io

import imagecodecs
import numpy as np
import pillow_heif
import pytest

from pix2pix.photos import opening
from pix2pix.photos.heif_items import picture_properties
from pix2pix.photos.icc import BT_2020_CHROMATICITIES
from pix2pix.photos.photo import open_photo
from pix2pix.photos.picture import COLORS_NOT_READ, READ_AS_8_BITS, read_upright
from tests.photos.odd_files import P3, light_to_srgb, opened, ramps, rgb_as_seen

DISPLAY_P3, BT_2020, SRGB = 12, 9, 13
PQ, HLG = 16, 18


def avif(bits: int, primaries: int = 1, transfer: int = SRGB, channels: int = 3) -> bytes:
    samples = ramps(channels=channels, depth=16) >> (16 - bits)
    samples = samples.astype(np.uint8) if bits == 8 else samples
    return bytes(
        imagecodecs.avif_encode(
            samples, level=100, bitspersample=bits, primaries=primaries, transfer=transfer
        )
    )


def heic(bits: int, primaries: int = 1, transfer: int = SRGB) -> bytes:
    samples = ramps(channels=3, depth=8 if bits == 8 else 16)
    file, mode = pillow_heif.HeifFile(), "RGB" if bits == 8 else "RGB;16"
    file.add_frombytes(mode, samples.shape[1::-1], samples.tobytes())
    out = io.BytesIO()
    options = {"color_primaries": primaries, "transfer_characteristics": transfer}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
        file.save(out, quality=100, chroma=444, **options)
    return out.getvalue()


def as_seen(primaries: int) -> np.ndarray:
    """The ramps with the curve of sRGB on such primaries, as sRGB in [0, 1]."""
    stored = ramps(channels=3, depth=16) / 65535
    if primaries == 1:
        return stored
    light = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    return rgb_as_seen(light, P3 if primaries == DISPLAY_P3 else BT_2020_CHROMATICITIES, 1.0)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("write", [avif, heic])
@pytest.mark.parametrize("primaries", [1, DISPLAY_P3, BT_2020])
def test_depth_and_primaries_are_honored(write, bits: int, primaries: int) -> None:
    pixels, notes = opened(write(bits, primaries))
    assert pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    error = np.abs(pixels / np.iinfo(pixels.dtype).max - as_seen(primaries))
    assert error.mean() < (2.5 if write is heic else 1) / 255
    assert notes == []
    assert np.abs(pixels.max() / np.iinfo(pixels.dtype).max - 1) < 0.004  # white is white
    levels = len(np.unique(pixels[..., 0]))
    assert levels > 256 or bits == 8


def test_10_bits_of_gray_are_read() -> None:
    pixels, _ = opened(avif(10, channels=1))
    assert pixels.shape == ramps().shape
    assert np.abs(pixels / 65535 - ramps(depth=16) / 65535).max() < 2 / 1023


def test_light_is_turned_into_srgb() -> None:
    pixels, notes = opened(avif(12, transfer=8))
    expected = light_to_srgb((ramps(channels=3, depth=16) >> 4) / 4095)
    assert np.abs(pixels / 65535 - expected).mean() < 1 / 255
    assert notes == []


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("write", [avif, heic])
def test_colors_of_high_dynamic_range_are_counted(write, transfer: int) -> None:
    for bits in (8, 10):
        assert opened(write(bits, BT_2020, transfer))[1] == [COLORS_NOT_READ]


@pytest.mark.parametrize("write", [avif, heic])
def test_without_the_extra_8_bits_are_read_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, write
) -> None:
    monkeypatch.setattr(opening, "has_deep_formats", lambda: False)
    kind = "AVIF" if write is avif else "HEIF"
    picture = opening.open_here(write(10), kind, 10**6)
    pixels = read_upright(picture, 0)
    assert pixels.dtype == np.uint8
    assert picture.notes == [READ_AS_8_BITS]


def test_data_preparation_sees_what_coloring_sees() -> None:
    data = avif(10, DISPLAY_P3)
    small, (deep, _) = np.asarray(open_photo(data)), opened(data)
    assert np.abs(small - deep / 257).max() <= 1


def test_properties_of_other_items_are_not_the_pictures() -> None:
    """A gain map or a thumbnail stands before the picture, and has colors of its own."""
    data = avif(10, DISPLAY_P3)
    mine = picture_properties(data)[b"colr"]
    other = avif(8, 1)[:]
    assert mine != picture_properties(other)[b"colr"]
    at = data.index(b"ipma") + 4
    assert data[at + 4 : at + 12] == b"\0\0\0\1\0\1\4\1"  # one item, its number, four properties
    moved = data[: at + 9] + b"\2" + data[at + 10 :]  # they belong to item 2 now
    assert picture_properties(moved) == {}
    assert picture_properties(b"") == {}
    assert picture_properties(data[:120]) == {}
