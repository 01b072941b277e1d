import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pix2pix.colorizing import colorizer as colorizer_module
from pix2pix.colorizing.colorizer import Colorizer, best_device
from pix2pix.model.color import ColorSpace, fit_gamut, rgb_to_lab
from pix2pix.model.networks import UNetGenerator, initialize
from pix2pix.photos.photo import luma, open_photo


class Painter(nn.Module):
    """A generator that paints the same picture always, and remembers what it was given."""

    def __init__(self, picture):
        super().__init__()
        self.picture = picture

    def forward(self, condition):
        self.condition = condition
        return self.picture.expand(len(condition), -1, -1, -1)


def paint_chroma(a, b, image_size=64):
    """A Colorizer that gives every pixel the chroma (a, b)."""
    picture = torch.tensor([a, b]).view(1, 2, 1, 1).expand(1, 2, image_size, image_size) / 110
    return Colorizer(Painter(picture), ColorSpace("lab"), image_size)


def untrained(name="lab"):
    space = ColorSpace(name)
    generator = UNetGenerator(1, space.output_channels, image_size=64, width=4)
    initialize(generator, torch.Generator().manual_seed(0))
    return Colorizer(generator, space, image_size=64)


def photograph(size=(90, 70), seed=0):
    """Smooth, in RGB, with lightness enough to be no faded print."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(60, 190, (5, 4, 3), dtype=np.uint8)
    coarse[0, 0], coarse[4, 3] = 30, 225
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def lab_of(photo):
    pixels = torch.from_numpy(np.array(photo.convert("RGB"))).permute(2, 0, 1)[None]
    return rgb_to_lab(pixels / 255)[0]


@pytest.mark.parametrize("size", [(64, 64), (90, 70), (31, 200), (1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("name", ["lab", "rgb"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_any_size_comes_back_in_that_size_and_in_rgb(size, name, mode):
    colored = untrained(name).colorize(photograph(size).convert(mode))
    assert colored.size == size
    assert colored.mode == "RGB"


def detailed_photograph():
    """With detail that no 64 px network sees, and with all of black and white."""
    photo = photograph((200, 150))
    checkers = np.indices((150, 200)).sum(axis=0) % 2 * 40
    pixels = np.array(photo) + checkers[..., None].astype(np.uint8)
    pixels[:, :32] = np.repeat(np.arange(0, 256, 8, dtype=np.uint8), 3).reshape(32, 3)
    return Image.fromarray(pixels)


def assert_lightness_kept(colored, photo):
    # Three channels of 8 bits cannot say it better.
    assert (lab_of(colored)[0] - lab_of(luma(photo))[0]).abs().max() < 0.4


@pytest.mark.parametrize("name", ["lab", "rgb"])
def test_full_resolution_lightness_is_kept(name):
    photo = detailed_photograph()
    assert_lightness_kept(untrained(name).colorize(photo), photo)


@pytest.mark.parametrize("chroma", [(80, 60), (-80, 70), (60, -110), (-50, -60)])
def test_lightness_is_kept_where_srgb_has_no_such_color(chroma):
    photo = detailed_photograph()
    colored = paint_chroma(*chroma).colorize(photo)
    assert_lightness_kept(colored, photo)
    a, b = lab_of(colored)[1:]
    vivid = torch.hypot(a, b) > 10  # below, 8 bits hold no hue
    turned = torch.atan2(b, a)[vivid] - math.atan2(chroma[1], chroma[0])
    assert vivid.float().mean() > 0.5
    assert turned.cos().min() > math.cos(math.radians(4))


def test_saturation_0_is_gray_and_1_is_what_the_network_says():
    photo, colorizer = photograph(), untrained()
    gray = colorizer.colorize(photo, saturation=0)
    assert np.array_equal(np.array(gray), np.array(luma(photo).convert("RGB")))
    plain = np.array(colorizer.colorize(photo))
    assert np.array_equal(np.array(colorizer.colorize(photo, saturation=1)), plain)
    assert not np.array_equal(plain, np.array(gray))


def test_saturation_is_a_factor_on_chroma():
    for saturation in (0.5, 2.0):
        lab = lab_of(paint_chroma(10.0, -8.0).colorize(photograph(), saturation=saturation))
        assert lab[1].mean().item() == pytest.approx(10 * saturation, abs=0.5)
        assert lab[2].mean().item() == pytest.approx(-8 * saturation, abs=0.5)


def faded(photo, black=90, white=170):
    return luma(photo).point([round(black + (white - black) * i / 255) for i in range(256)])


def full_contrast(size=(64, 64)):
    return Image.fromarray(np.linspace(0, 255, size[0] * size[1]).reshape(size).astype(np.uint8))


def test_of_a_faded_print_the_network_sees_full_contrast_and_the_result_keeps_its_own():
    painter = Painter(torch.zeros(1, 2, 64, 64))
    print_ = faded(full_contrast())
    colored = Colorizer(painter, ColorSpace("lab"), 64).colorize(print_)
    assert painter.condition.aminmax() == pytest.approx((-1, 1), abs=0.01)
    assert np.array_equal(np.array(colored), np.array(print_.convert("RGB")))


def test_the_colors_of_a_faded_print_are_faded_as_it_is():
    print_ = faded(full_contrast())
    lab = lab_of(paint_chroma(20.0, -16.0).colorize(print_))
    share = (np.percentile(np.array(print_), 99.5) - np.percentile(np.array(print_), 0.5)) / 255
    assert 0.25 < share < 0.35
    assert lab[1].mean().item() == pytest.approx(20 * share, abs=0.5)
    assert lab[2].mean().item() == pytest.approx(-16 * share, abs=0.5)
    restored = lab_of(paint_chroma(20.0, -16.0).colorize(print_, restore_contrast=True))
    assert restored[1, 20:44].mean().item() == pytest.approx(20, abs=0.5)


def test_restored_contrast_is_seen_in_the_result_too():
    painter = Painter(torch.zeros(1, 2, 64, 64))
    print_ = faded(full_contrast())
    colorizer = Colorizer(painter, ColorSpace("lab"), 64)
    restored = np.array(colorizer.colorize(print_, restore_contrast=True)).astype(int)
    original = np.array(full_contrast().convert("RGB")).astype(int)
    assert np.abs(restored - original).max() <= 6  # specks are cut
    assert painter.condition.aminmax() == pytest.approx((-1, 1), abs=0.01)


def test_the_chroma_that_was_painted_arrives():
    lab = lab_of(paint_chroma(20.0, -15.0).colorize(photograph()))
    assert lab[1].mean().item() == pytest.approx(20, abs=0.5)
    assert lab[2].mean().item() == pytest.approx(-15, abs=0.5)


def test_without_chroma_the_gray_photograph_comes_back():
    photo = photograph()
    colored = paint_chroma(0.0, 0.0).colorize(photo)
    assert np.array_equal(np.array(colored), np.array(luma(photo).convert("RGB")))


def test_chroma_lands_where_it_was_painted():
    halves = torch.zeros(1, 2, 64, 64)
    halves[:, 0, :, :32] = -0.2  # green at the left
    halves[:, 0, :, 32:] = 0.2  # red at the right
    colorizer = Colorizer(Painter(halves), ColorSpace("lab"), 64)
    a = lab_of(colorizer.colorize(Image.new("L", (640, 30), 128)))[1]
    assert a[:, :300].mean().item() == pytest.approx(-22, abs=0.5)
    assert a[:, 340:].mean().item() == pytest.approx(22, abs=0.5)


def test_rgb_generator_gives_its_chroma_and_not_its_lightness():
    dark_red = torch.tensor([0.4, 0.1, 0.1]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    colorizer = Colorizer(Painter(dark_red * 2 - 1), ColorSpace("rgb"), 64)
    lab = lab_of(colorizer.colorize(Image.new("L", (40, 40), 128)))
    expected = rgb_to_lab(dark_red[:, :, :1, :1])[0, :, 0, 0]
    torch.testing.assert_close(lab[1:, 5, 5], expected[1:], rtol=0, atol=0.6)
    assert lab[0, 5, 5].item() == pytest.approx(53.6, abs=0.3)


@pytest.mark.parametrize("name", ["lab", "rgb"])
def test_network_sees_the_gray_of_training(name):
    space = ColorSpace(name)
    painter = Painter(torch.zeros(1, space.output_channels, 64, 64))
    photo = full_contrast()
    Colorizer(painter, space, 64).colorize(photo)
    gray = torch.from_numpy(np.array(photo))[None, None]
    assert torch.equal(painter.condition, space.condition(gray))


def test_colors_of_the_photograph_are_not_looked_at():
    photo = photograph()
    colorizer = untrained()
    colored = colorizer.colorize(photo)
    assert np.array_equal(np.array(colored), np.array(colorizer.colorize(luma(photo))))


def test_large_photographs_are_joined_in_strips_without_a_seam(monkeypatch):
    photo, colorizer = photograph((333, 257)), untrained()
    whole = np.array(colorizer.colorize(photo)).astype(int)
    monkeypatch.setattr(colorizer_module, "STRIP_PIXELS", 333 * 10)
    strips = np.array(colorizer.colorize(photo)).astype(int)
    assert np.abs(whole - strips).max() <= 1
    assert np.mean(whole != strips) < 1e-3


def test_memory_is_that_of_a_strip_however_large_the_photograph(monkeypatch):
    pixels = []

    def watched(lab):
        pixels.append(lab[0, 0].numel())
        return fit_gamut(lab)

    monkeypatch.setattr(colorizer_module, "STRIP_PIXELS", 5000)
    monkeypatch.setattr(colorizer_module, "fit_gamut", watched)
    untrained().colorize(photograph((333, 257)))
    assert sum(pixels) == 333 * 257
    assert max(pixels) <= 5000


def test_same_photograph_same_colors_whatever_was_colored_before():
    colorizer = untrained()
    first = np.array(colorizer.colorize(photograph()))
    colorizer.colorize(photograph(seed=1))
    torch.rand(3)
    assert np.array_equal(np.array(colorizer.colorize(photograph())), first)


def test_coloring_leaves_the_network_as_it_was():
    colorizer = untrained()
    before = {name: value.clone() for name, value in colorizer.generator.state_dict().items()}
    colorizer.colorize(photograph())
    after = colorizer.generator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not colorizer.generator.training


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(64, 64), (70, 90), (1, 300)])
def test_an_array_comes_back_at_its_depth(dtype, shape):
    white = np.iinfo(dtype).max
    gray = np.linspace(0, white, shape[0] * shape[1]).reshape(shape).astype(dtype)
    colored = untrained().colorize_array(gray)
    assert (colored.dtype, colored.shape) == (dtype, (*shape, 3))


def test_an_array_of_8_bits_is_colored_as_its_picture():
    photo = photograph()
    colored = untrained().colorize(photo)
    assert np.array_equal(untrained().colorize_array(np.asarray(luma(photo))), np.asarray(colored))


def test_16_bits_keep_the_lightness_of_each_of_their_levels():
    levels = np.linspace(0, 65535, 200 * 150).reshape(150, 200).round().astype(np.uint16)
    colored = paint_chroma(20.0, -15.0).colorize_array(levels)
    assert_lightness_of_16_bits_kept(colored, levels)
    coarse = paint_chroma(20.0, -15.0).colorize_array((levels // 257).astype(np.uint8))
    assert np.abs(colored / 257 - coarse).mean() < 1.5


def assert_lightness_of_16_bits_kept(colored, levels):
    as_rgb = torch.from_numpy(colored / 65535).permute(2, 0, 1)[None].double()
    gray = torch.from_numpy(levels / 65535).expand(1, 3, *levels.shape).double()
    off = (rgb_to_lab(as_rgb)[0, 0] - rgb_to_lab(gray)[0, 0]).abs()
    assert off.max() < 0.1  # next to black, where no color has that lightness; 8 bits: 0.4
    assert off.mean() < 0.005


def test_contrast_of_16_bits_is_restored_in_16():
    faded = np.linspace(20_000, 40_000, 150 * 200).reshape(150, 200).astype(np.uint16)
    colored = paint_chroma(0.0, 0.0).colorize_array(faded, restore_contrast=True)
    assert colored.min() < 300
    assert colored.max() > 65_200
    assert len(np.unique(colored[..., 1])) > 10_000


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.int16),
        np.zeros((0, 4), np.uint8),
        [[0, 1], [2, 3]],
        photograph(),
    ],
)
def test_other_arrays_are_a_type_error(wrong):
    with pytest.raises(TypeError, match="needed"):
        untrained().colorize_array(wrong)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), "old.jpg", None])
def test_what_is_no_picture_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="picture of Pillow's is needed"):
        untrained().colorize(wrong)


def test_pictures_that_pillow_opened_are_turned_and_scaled(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph((90, 70)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    deep = Image.fromarray((np.asarray(luma(photograph())).astype(np.uint16)) * 257)
    deep.save(tmp_path / "b.png")
    for name, size in (("a.jpg", (70, 90)), ("b.png", (90, 70))):
        with Image.open(tmp_path / name) as opened:
            colored = untrained().colorize(opened)
        expected = untrained().colorize(open_photo(tmp_path / name))
        assert colored.size == size
        assert np.abs(np.asarray(colored).astype(int) - np.asarray(expected)).max() <= 2


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_a_gpu_colors_where_torch_sees_one(monkeypatch, cuda, mps, device):
    """torch's answers are patched: this machine need not have either."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == device
