"""Promises of restored contrast: faded prints get black and white back, others stay."""

import numpy as np
import pytest
from PIL import Image

from pix2pix.colorizing.contrast import black_and_white, contrast, is_faded, stretch_contrast


def ramp(black, white, size=(200, 20)):
    """Every level between two alike."""
    levels = np.linspace(black, white, size[0] * size[1]).round().astype(np.uint8)
    return Image.fromarray(levels.reshape(size[1], size[0]))


def test_a_faded_print_goes_from_black_to_white():
    restored = np.array(stretch_contrast(ramp(90, 170)))
    assert (restored.min(), restored.max()) == (0, 255)
    assert np.median(restored) == pytest.approx(127.5, abs=2)


def test_full_contrast_is_left_as_it_is():
    picture = np.array(ramp(0, 255))
    picture[:2] = 0
    picture[-2:] = 255
    picture = Image.fromarray(picture)
    assert np.array_equal(np.array(stretch_contrast(picture)), np.array(picture))


def test_specks_do_not_decide():
    pixels = np.array(ramp(100, 150))
    pixels[0, :8], pixels[0, 8:16] = 0, 255  # 4 in 1,000
    black, white = black_and_white(Image.fromarray(pixels))
    assert 100 <= black <= 101
    assert 149 <= white <= 150


def test_contrast_is_the_share_of_the_levels():
    assert contrast(ramp(0, 255)) == pytest.approx(1, abs=0.02)
    assert contrast(ramp(90, 170)) == pytest.approx(80 / 255, abs=0.01)


@pytest.mark.parametrize(("black", "white"), [(0, 0), (130, 130), (255, 255), (120, 134)])
def test_an_empty_picture_stays_empty(black, white):
    paper = ramp(black, white)
    assert np.array_equal(np.array(stretch_contrast(paper)), np.array(paper))
    assert not is_faded(paper)


@pytest.mark.parametrize(
    ("black", "white", "faded"), [(0, 255, False), (40, 220, False), (60, 200, True), (5, 25, True)]
)
def test_faded_is_what_photographs_are_not(black, white, faded):
    assert is_faded(ramp(black, white)) is faded
