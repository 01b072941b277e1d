from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from data_prep.pairs import PairSettings, make_pair
from pix2pix.photos import resize as resize_module
from pix2pix.photos.icc import rgb_profile
from pix2pix.photos.photo import open_photo, open_to_resize
from pix2pix.photos.resize import RESIZER, open_square, picture_size, resize
from tests.photographs import colorful, encoded
from tests.photos.odd_files import ADOBE


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 48), (301, 233), (640, 480)])
def test_it_is_lanczos_as_pillow_has_it(mode: str, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for picture in (Image.fromarray(noise).convert(mode), colorful(320, 240).convert(mode)):
        resized = resize(picture, size)
        assert (resized.mode, resized.size) == (mode, size)
        expected = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(np.asarray(resized) - expected).mean() < 1


def test_without_the_library_it_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize_module, "RESIZER", "pillow")
    picture = colorful(320, 240)
    assert resize(picture, (64, 48)) == picture.resize((64, 48), Image.Resampling.LANCZOS)


def test_bits_do_not_depend_on_the_processor() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    here = [resize(picture, size) for size in [(381, 286), (900, 675)]]
    if RESIZER == "cykooz":
        from cykooz_resizer import CpuExtensions

        before = resize_module._RESIZER.cpu_extensions
        resize_module._RESIZER.cpu_extensions = CpuExtensions.none
        try:
            assert here == [resize(picture, size) for size in [(381, 286), (900, 675)]]
        finally:
            resize_module._RESIZER.cpu_extensions = before


@pytest.mark.parametrize("resizer", sorted({RESIZER, "pillow"}))
def test_a_box_is_that_part_of_the_whole(resizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize_module, "RESIZER", resizer)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    whole = np.asarray(resize(picture, (100, 75))).astype(int)
    box = (20 * 3.2, 10 * 3.2, 60 * 3.2, 50 * 3.2)
    part = np.asarray(resize(picture, (40, 40), box)).astype(int)
    assert np.abs(part - whole[10:50, 20:60]).mean() < 1


FORMATS = {
    "jpeg": ("JPEG", {"quality": 90}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 90}),
    "cmyk": ("JPEG", {"quality": 90}),
    "turned": ("JPEG", {"quality": 90}),
    "large": ("JPEG", {"quality": 90}),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.0, 1.0)])
def test_a_square_is_what_preparation_would_have_made(name: str, place) -> None:
    kind, options = FORMATS[name]
    photo = colorful(*((1900, 1300) if name == "large" else (200, 130)), seed=3)
    if name == "cmyk":
        photo = photo.convert("CMYK")
    if name == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options = options | {"exif": exif}
    data = encoded(photo, kind, **options)
    pair = make_pair(data, PairSettings(short_side=72, min_short_side=40, min_chroma=0))
    gray, color = open_square(data, 72, 64, *place)
    assert (gray.shape, color.shape) == ((64, 64, 1), (64, 64, 3))
    y, x = round(place[0] * (pair.height - 64)), round(place[1] * (pair.width - 64))
    for found, jpeg in ((color, pair.color_jpeg), (gray[:, :, 0], pair.gray_jpeg)):
        prepared = np.asarray(open_photo(jpeg)).astype(int)[y : y + 64, x : x + 64]
        assert np.abs(found - prepared).mean() <= 2.5


def test_pictures_keep_their_shape() -> None:
    assert picture_size(640, 480, 286) == (381, 286)
    assert picture_size(480, 640, 286) == (286, 381)


def test_a_profile_is_applied_after_the_resize_where_that_changes_little() -> None:
    """Adobe RGB and gamma 1.8 wait for fewer pixels; light does not: its means are others."""
    noise = np.random.default_rng(0).integers(60, 200, (120, 160, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    for gamma, waits in ((563 / 256, True), (1.8, True), (1.0, False)):
        data = encoded(photo, icc_profile=rgb_profile(ADOBE, gamma), quality=95, subsampling=0)
        opened, _, to_srgb = open_to_resize(data, 400)
        waiting = np.asarray(opened).astype(int)
        late = np.asarray(to_srgb(resize(opened, (320, 240)))).astype(int)
        first = np.asarray(resize(open_photo(data), (320, 240))).astype(int)
        assert np.abs(late - first).mean() < 2
        assert (np.abs(waiting - np.asarray(open_photo(data))).max() > 20) == waits
        pair = make_pair(data, PairSettings(240, 240, 0.0))
        stored = np.asarray(Image.open(BytesIO(pair.color_jpeg))).astype(int)
        assert np.abs(stored - first).mean() < 4  # and JPEG of noise
        square = open_square(data, 240, 240, 0.0, 0.0)[1].astype(int)
        assert np.abs(square - first[:, :240]).mean() < 2


@pytest.mark.parametrize(
    "box", [(0, 0, 640, 480), (100.3, 50.7, 470.9, 421.3), (269.2, 0, 640, 370.8), (3, 4, 35, 36)]
)
def test_only_what_the_filter_sees_is_copied_and_the_bits_stay(
    monkeypatch: pytest.MonkeyPatch, box: resize_module.Box
) -> None:
    picture = colorful(640, 480)
    cut = np.asarray(resize_module.resize(picture, (64, 64), box))
    monkeypatch.setattr(resize_module, "_cut", lambda picture, size, box: (picture, box))
    assert np.array_equal(cut, np.asarray(resize_module.resize(picture, (64, 64), box)))
