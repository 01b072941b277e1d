import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from pix2pix.photos import photo as photo_module
from pix2pix.photos.eight_bits import to_8_bits
from pix2pix.photos.icc import rgb_profile
from pix2pix.photos.photo import (
    PhotoError,
    chroma_spread,
    luma,
    open_eighth,
    open_photo,
    open_reduced,
)
from tests.photographs import colorful, encoded, grayish
from tests.photos.odd_files import ADOBE

RAMP_16 = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
RAMP_8 = np.round(RAMP_16 / 257).astype(np.int64)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(np.int64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_rgb_of_every_format_opens_as_it_is(kind: str) -> None:
    opened = open_photo(encoded(colorful(), kind))
    assert opened.mode == "RGB"
    assert np.abs(pixels(opened) - pixels(colorful())).mean() < 5


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG"])
def test_single_channel_stays_single_channel(kind: str) -> None:
    opened = open_photo(encoded(colorful().convert("L"), kind))
    assert opened.mode == "L"
    assert np.abs(pixels(opened) - pixels(colorful().convert("L"))).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_by_its_depth(kind: str) -> None:
    opened = open_photo(encoded(Image.fromarray(RAMP_16), kind))
    assert opened.mode == "L"
    assert np.abs(pixels(opened) - RAMP_8).max() <= 1


def test_big_endian_16_bit_gray_is_scaled_by_its_depth() -> None:
    big_endian = Image.frombytes("I;16B", (64, 48), RAMP_16.astype(">u2").tobytes())
    assert np.abs(pixels(open_photo(encoded(big_endian, "TIFF"))) - RAMP_8).max() <= 1


def test_32_bit_gray_that_holds_16_bits_is_scaled_by_those() -> None:
    opened = open_photo(encoded(Image.fromarray(RAMP_16.astype(np.int32)), "TIFF"))
    assert np.abs(pixels(opened) - RAMP_8).max() <= 1


def test_12_bit_gray_is_scaled_by_the_depth_that_the_file_names() -> None:
    photo = Image.open(io.BytesIO(encoded(Image.fromarray(RAMP_16 >> 4), "TIFF")))
    photo.tag_v2[258] = (12,)  # Pillow reads such files, and cannot write one
    opened = to_8_bits(photo)
    assert np.abs(pixels(opened) - RAMP_8).max() <= 1


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_float_gray_is_scaled_by_its_range(white: float) -> None:
    values = (RAMP_16 / 65535 * white).astype(np.float32)
    values[0, 0] = np.nan
    opened = open_photo(encoded(Image.fromarray(values), "TIFF"))
    assert opened.mode == "L"
    assert np.abs(pixels(opened) - RAMP_8).max() <= 1


def test_16_bit_color_keeps_its_high_bytes() -> None:
    row = b"\0" + struct.pack(">HHH", 65535, 32768, 256) * 4
    opened = open_photo(png(4, 4, depth=16, color_type=2, rows=row * 4))
    assert opened.getpixel((3, 3)) == (255, 128, 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_lies_on_white(mode: str) -> None:
    picture = colorful().convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 0))
    if mode == "P":
        data = encoded(picture, "GIF")
    elif mode == "PA":
        data = encoded(picture.quantize(), "PNG")
    else:
        data = encoded(picture.convert(mode), "PNG")
    opened = open_photo(data)
    assert opened.mode == ("L" if mode == "LA" else "RGB")
    assert pixels(opened).min() == 255


def test_a_transparent_color_of_a_png_lies_on_white() -> None:
    black = encoded(Image.new("RGB", (8, 8), "black"), "PNG", transparency=(0, 0, 0))
    assert pixels(open_photo(black)).min() == 255


def test_half_transparency_is_half_white() -> None:
    picture = Image.new("RGBA", (8, 8), (100, 0, 0, 128))
    assert open_photo(encoded(picture, "PNG")).getpixel((0, 0)) == (177, 127, 127)


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("CMYK", "JPEG", {}),
        ("YCbCr", "JPEG", {}),
        ("CMYK", "TIFF", {}),
        ("YCbCr", "TIFF", {"compression": "jpeg"}),  # without, Pillow before 13 can't read it
    ],
)
def test_print_and_video_colors_become_rgb(mode: str, kind: str, options: dict[str, str]) -> None:
    opened = open_photo(encoded(colorful().convert(mode), kind, **options))
    assert opened.mode == "RGB"
    assert np.abs(pixels(opened) - pixels(colorful())).mean() < 5


def test_palette_and_bitmap_open() -> None:
    palette = open_photo(encoded(colorful().quantize(256), "PNG"))
    assert palette.mode == "RGB"
    assert np.abs(pixels(palette) - pixels(colorful())).mean() < 12  # as coarse as the palette
    bitmap = open_photo(encoded(colorful().convert("1"), "PNG"))
    assert bitmap.mode == "L"
    assert set(np.unique(pixels(bitmap))) == {0, 255}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), name) for name in ("red", "lime")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = open_photo(data).getpixel((8, 8))  # type: ignore[misc]
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(kind: str, orientation: int) -> None:
    upright = colorful()
    # The transposition that, stored with this orientation, EXIF 2.32 says shows `upright`.
    stored_as = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(stored_as[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_photo(encoded(stored, kind, exif=exif))
    assert opened.size == upright.size
    assert np.abs(pixels(opened) - pixels(upright)).mean() < 5


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"]
)
def test_broken_exif_is_no_reason_to_refuse(exif: bytes) -> None:
    assert open_photo(encoded(colorful(), "JPEG", exif=exif)).size == colorful().size


def test_an_orientation_that_is_none_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert open_photo(encoded(colorful(), "JPEG", exif=exif)).size == colorful().size


JPEG = encoded(colorful(640, 480))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"hello, I am a text", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (encoded(colorful(), "PNG")[:-2000], "truncated"),
        (JPEG[:20], "not_an_image"),
    ],
)
def test_what_is_no_photograph_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(PhotoError) as caught:
        open_photo(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("short_side", "scale"), [(300, 1), (241, 1), (240, 2), (121, 2), (120, 4), (60, 8), (1, 8)]
)
def test_a_jpeg_is_reduced_as_far_as_its_short_side_allows(short_side: int, scale: int) -> None:
    reduced, size = open_reduced(JPEG, short_side)
    assert size == (640, 480)
    assert reduced.size == (640 // scale, 480 // scale)
    shrunk = open_photo(JPEG).resize(reduced.size, Image.Resampling.BOX)
    assert np.abs(pixels(reduced) - pixels(shrunk)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_photograph_is_upright_and_knows_its_own_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(colorful(640, 480), exif=exif)
    whole = open_photo(data)
    reduced, size = open_reduced(data, 100)
    assert size == whole.size
    assert reduced.size == (whole.width // 4, whole.height // 4)
    shrunk = whole.resize(reduced.size, Image.Resampling.BOX)
    assert np.abs(pixels(reduced) - pixels(shrunk)).mean() < 2


@pytest.mark.parametrize(("mode", "opened"), [("L", "L"), ("CMYK", "RGB"), ("RGB", "RGB")])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_of_every_kind_are_reduced(mode: str, opened: str, progressive: bool) -> None:
    picture = colorful(640, 480).convert(mode)
    reduced, _ = open_reduced(encoded(picture, progressive=progressive), 100)
    assert (reduced.mode, reduced.size) == (opened, (160, 120))
    shrunk = picture.convert(opened).resize((160, 120), Image.Resampling.BOX)
    assert np.abs(pixels(reduced) - pixels(shrunk)).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_plain_jpeg_comes_at_an_eighth_in_one_decoding(mode: str, progressive: bool) -> None:
    picture = colorful(640, 480).convert(mode)
    eighth = open_eighth(encoded(picture, progressive=progressive))
    assert eighth is not None
    photo, size, to_srgb = eighth
    assert (size, photo.size, photo.mode) == ((640, 480), (80, 60), mode)
    shrunk = picture.resize((80, 60), Image.Resampling.BOX)
    assert np.abs(pixels(to_srgb(photo)) - pixels(shrunk)).mean() < 2


def test_colors_of_an_eighth_are_converted_as_those_of_a_reduced_photograph() -> None:
    data = encoded(colorful(640, 480), icc_profile=rgb_profile(ADOBE, 2.2))
    eighth = open_eighth(data)
    assert eighth is not None
    photo, _, to_srgb = eighth
    assert np.array_equal(pixels(to_srgb(photo)), pixels(open_reduced(data, 60)[0]))


@pytest.mark.parametrize(
    "data",
    [
        encoded(colorful(), "PNG"),
        JPEG[:-200],
        JPEG[:10],
        b"",
        encoded(colorful().convert("CMYK")),
        encoded(colorful(), icc_profile=b"no profile"),
        encoded(colorful(), icc_profile=rgb_profile(ADOBE, 1.0)),  # converted before a resize
    ],
)
def test_what_only_the_usual_opening_can_tell_has_no_eighth(data: bytes) -> None:
    assert open_eighth(data) is None


def test_other_formats_come_whole() -> None:
    reduced, size = open_reduced(encoded(colorful(640, 480), "PNG"), 100)
    assert reduced.size == size == (640, 480)


def test_reducing_hides_no_damage() -> None:
    for data, reason in [(JPEG[: len(JPEG) // 2], "truncated"), (b"", "empty_file")]:
        with pytest.raises(PhotoError) as caught:
            open_reduced(data, 60)
        assert caught.value.reason == reason


def test_a_photograph_is_too_large_by_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_module, "MAX_PIXELS", 640 * 480 - 1)
    with pytest.raises(PhotoError, match="640 x 480") as caught:
        open_reduced(JPEG, 60)
    assert caught.value.reason == "too_many_pixels"


def png(width: int, height: int, depth: int, color_type: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [11_000, 11_700, 60_000])
def test_bombs_are_refused_without_a_warning(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PhotoError, match=r"decoded|pixels") as caught:
            open_photo(png(side, side, depth=8, color_type=2, rows=b"\0"))
    allowed = side**2 <= photo_module.MAX_PIXELS
    assert caught.value.reason == ("truncated" if allowed else "too_many_pixels")


def test_files_open_like_their_bytes(tmp_path) -> None:
    path = tmp_path / "a photograph, of sorts.jpg"
    path.write_bytes(JPEG)
    assert np.array_equal(pixels(open_photo(path)), pixels(open_photo(JPEG)))
    with pytest.raises(PhotoError, match="cannot be read") as caught:
        open_photo(tmp_path / "absent.jpg")
    assert caught.value.reason == "unreadable"
    with pytest.raises(PhotoError) as caught:
        open_photo(tmp_path)
    assert caught.value.reason == "unreadable"


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PhotoError("near_gray", "pale")))
    assert (error.reason, str(error)) == ("near_gray", "pale")


def test_luma_is_rec_601() -> None:
    expected = pixels(colorful()) @ np.array([0.299, 0.587, 0.114])
    gray = luma(colorful())
    assert gray.mode == "L"
    assert np.abs(pixels(gray) - expected).max() <= 1


def test_chroma_spread_is_the_mean_of_max_minus_min() -> None:
    assert chroma_spread(grayish(spread=0)) == 0
    assert chroma_spread(grayish(spread=7)) == 7
    assert chroma_spread(grayish().convert("L")) == 0
    array = pixels(colorful())
    expected = (array.max(-1) - array.min(-1)).mean()
    assert chroma_spread(colorful()) == pytest.approx(expected)
