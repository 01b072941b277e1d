import io

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from data_prep.pairs import Pair, PairSettings, make_pair
from pix2pix.photos.photo import PhotoError, luma
from tests.photographs import colorful, encoded, grayish

SETTINGS = PairSettings(short_side=48, min_short_side=40, min_chroma=4.0)


def decoded(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg))


def reason_of(data: bytes, settings: PairSettings = SETTINGS) -> str:
    with pytest.raises(PhotoError) as caught:
        make_pair(data, settings)
    return caught.value.reason


@pytest.mark.parametrize(
    ("size", "expected"),
    [((80, 64), (60, 48)), ((64, 80), (48, 60)), ((64, 64), (48, 48)), ((200, 49), (196, 48))],
)
def test_the_short_side_is_as_asked_and_the_shape_kept(size, expected) -> None:
    pair = make_pair(encoded(colorful(*size), "PNG"), SETTINGS)
    assert (pair.width, pair.height) == expected
    assert (pair.photo_width, pair.photo_height) == size
    assert decoded(pair.gray_jpeg).size == decoded(pair.color_jpeg).size == expected


def test_color_has_full_chroma_and_gray_one_channel() -> None:
    pair = make_pair(encoded(colorful()), SETTINGS)
    color, gray = decoded(pair.color_jpeg), decoded(pair.gray_jpeg)
    assert color.mode == "RGB"
    assert gray.mode == "L"
    assert JpegImagePlugin.get_sampling(color) == 0  # 4:4:4
    assert color.quantization[0] == decoded(encoded(colorful(), quality=95)).quantization[0]


def test_gray_is_the_luma_of_the_color_picture() -> None:
    pair = make_pair(encoded(colorful(), "PNG"), SETTINGS)
    gray = np.asarray(decoded(pair.gray_jpeg)).astype(float)
    of_color = np.asarray(luma(decoded(pair.color_jpeg).convert("RGB"))).astype(float)
    assert np.abs(gray - of_color).mean() < 1
    resized = colorful().resize((60, 48), Image.Resampling.LANCZOS)
    assert np.abs(gray - np.asarray(luma(resized))).mean() < 1


def test_photographs_between_the_two_sides_are_enlarged() -> None:
    pair = make_pair(encoded(colorful(60, 44), "PNG"), SETTINGS)
    assert (pair.width, pair.height) == (65, 48)


def test_a_photograph_is_turned_before_it_is_measured() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pair = make_pair(encoded(colorful(80, 64), exif=exif), SETTINGS)
    assert (pair.width, pair.height, pair.photo_width, pair.photo_height) == (48, 60, 64, 80)


def test_a_large_jpeg_is_measured_by_its_own_size() -> None:
    data = encoded(colorful(640, 480))  # decoded at 1/4
    pair = make_pair(data, PairSettings(short_side=48, min_short_side=480, min_chroma=4.0))
    assert (pair.width, pair.height, pair.photo_width, pair.photo_height) == (64, 48, 640, 480)
    whole = colorful(640, 480).resize((64, 48), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(decoded(pair.color_jpeg)).astype(int) - np.asarray(whole)).mean() < 2
    assert reason_of(data, PairSettings(48, 481, 4.0)) == "too_small"


def test_small_ones_are_rejected() -> None:
    assert reason_of(encoded(colorful(200, 39), "PNG")) == "too_small"
    assert isinstance(make_pair(encoded(colorful(200, 40), "PNG"), SETTINGS), Pair)


def test_near_gray_ones_are_rejected_below_the_threshold() -> None:
    assert reason_of(encoded(grayish(spread=3), "PNG")) == "near_gray"
    assert reason_of(encoded(grayish().convert("L"), "PNG")) == "near_gray"
    assert isinstance(make_pair(encoded(grayish(spread=5), "PNG"), SETTINGS), Pair)
    loose = PairSettings(48, 40, min_chroma=0)
    assert isinstance(make_pair(encoded(grayish(spread=3), "PNG"), loose), Pair)
    assert isinstance(make_pair(encoded(grayish().convert("L"), "PNG"), loose), Pair)


def test_what_does_not_open_keeps_its_reason() -> None:
    assert reason_of(b"") == "empty_file"
    assert reason_of(b"text") == "not_an_image"
    assert reason_of(encoded(colorful(640, 480))[:5000]) == "truncated"


def test_what_came_with_the_photograph_stays_behind() -> None:
    plain = encoded(colorful())
    exif = Image.Exif()
    exif[0x010E] = "a description"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noted = encoded(colorful(), comment=b"a comment", exif=exif, icc_profile=srgb, dpi=(9, 9))
    assert len(noted) > len(plain)
    assert make_pair(noted, SETTINGS) == make_pair(plain, SETTINGS)
