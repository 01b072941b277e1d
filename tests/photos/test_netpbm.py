"""PGM, PPM and PAM of any depth, as netpbm's manual pages describe them."""

import io

import numpy as np
import pytest
from PIL import Image

from pix2pix.photos import opening
from pix2pix.photos.photo import PhotoError, open_photo, open_picture
from pix2pix.photos.picture import READ_AS_8_BITS, read_upright
from tests.photos.odd_files import ramps


def raw(samples: np.ndarray, white: int, comment: str = "") -> bytes:
    kind = "P5" if samples.ndim == 2 else "P6"
    head = f"{kind}\n{comment}{samples.shape[1]} {samples.shape[0]}\n{white}\n"
    return head.encode() + samples.astype(">u2" if white > 255 else "u1").tobytes()


def plain(samples: np.ndarray, white: int) -> bytes:
    kind = "P2" if samples.ndim == 2 else "P3"
    numbers = " ".join(map(str, samples.ravel()))
    return f"{kind} {samples.shape[1]} {samples.shape[0]} {white}\n# by hand\n{numbers}\n".encode()


def pam(samples: np.ndarray, white: int) -> bytes:
    height, width, depth = samples.shape
    head = f"P7\nWIDTH {width}\n# a comment\nHEIGHT {height}\nDEPTH {depth}\nMAXVAL {white}\n"
    kind = ["GRAYSCALE", "GRAYSCALE_ALPHA", "RGB", "RGB_ALPHA"][depth - 1]
    dtype = ">u2" if white > 255 else "u1"
    return f"{head}TUPLTYPE {kind}\nENDHDR\n".encode() + samples.astype(dtype).tobytes()


def opened(data: bytes) -> np.ndarray:
    picture = open_picture(data, 10**6)
    assert picture.notes == []
    return read_upright(picture, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [4095, 65535])
@pytest.mark.parametrize("write", [raw, plain])
def test_more_than_8_bits_are_read_at_their_depth(write, white: int, channels: int) -> None:
    samples = ramps(channels=channels, depth=16) // (65536 // (white + 1))
    pixels = opened(write(samples, white))
    assert pixels.dtype == np.uint16
    assert np.abs(pixels - samples * (65535 / white)).max() <= 0.5


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("white", [255, 65535])
def test_pam_is_read_with_its_transparency_on_white(white: int, depth: int) -> None:
    samples = ramps(channels=4, depth=8 if white == 255 else 16)[..., :depth]
    unit = samples / white
    expected = unit if depth in (1, 3) else unit[..., :-1] * unit[..., -1:] + 1 - unit[..., -1:]
    pixels = opened(pam(samples, white)) / white
    assert np.abs(pixels.reshape(expected.shape) - expected).max() <= 2 / 255


def test_few_levels_are_scaled_to_8_bits() -> None:
    samples = ramps() // 3
    pixels = opened(raw(samples, 85, "# two\n# lines\n"))
    assert np.array_equal(pixels, samples * 3)


def test_the_usual_kind_is_what_pillow_reads() -> None:
    file = io.BytesIO()
    Image.fromarray(ramps(channels=3)).save(file, "PPM")
    assert np.array_equal(opened(file.getvalue()), ramps(channels=3))


@pytest.mark.parametrize("channels", [1, 3])
def test_without_the_extra_8_bits_are_read_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    monkeypatch.setattr(opening, "has_deep_formats", lambda: False)
    samples = ramps(channels=channels, depth=16)
    picture = open_picture(raw(samples, 65535), 10**6)
    pixels = read_upright(picture, 0)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - samples / 257).max() <= 1
    assert picture.notes == [READ_AS_8_BITS]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (raw(ramps(depth=16), 65535)[:-1], "truncated"),
        (plain(ramps(depth=16), 65535)[:-90], "truncated"),
        (plain(ramps(depth=16), 300), "undecodable"),
        (b"P5 9999 9999 65535\n", "too_many_pixels"),
        (b"P5 9 9 70000\n", "unsupported"),
        (b"P7\nWIDTH 3\nHEIGHT 3\nDEPTH 9\nMAXVAL 255\nENDHDR\n", "unsupported"),
        (b"P7\nWIDTH 3\nHEIGHT 3\nENDHDR\n" + bytes(99), "not_an_image"),
    ],
)
def test_damage_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PhotoError) as caught:
        open_photo(data, 10**6)
    assert caught.value.reason == reason
