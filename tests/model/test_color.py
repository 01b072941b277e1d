import math

import pytest
import torch
from skimage.color import lab2rgb, rgb2lab, rgb2xyz

from pix2pix.errors import UserError
from pix2pix.model import color
from pix2pix.model.color import ColorSpace


def colors_8_bit(step):
    """Colors on a grid over the 8-bit cube that holds its corners: [1, 3, N, 1] uint8."""
    levels = torch.arange(0, 256, step, dtype=torch.uint8)
    return torch.cartesian_prod(levels, levels, levels).T[None, :, :, None]


def to_8_bit(rgb):
    return (rgb * 255).round().to(torch.uint8)


def gray_levels():
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_lab_round_trip_is_exact_to_8_bits():
    colors = colors_8_bit(step=3)  # 636,056 colors
    assert torch.equal(to_8_bit(color.lab_to_rgb(color.rgb_to_lab(colors / 255))), colors)


def test_lab_and_xyz_agree_with_skimage():
    colors = colors_8_bit(step=15) / 255
    as_array = colors.double().movedim(1, -1).numpy()

    def channels_first(array):
        return torch.from_numpy(array).movedim(-1, 1).float()

    xyz = color.linear_to_xyz(color.srgb_to_linear(colors))
    torch.testing.assert_close(xyz, channels_first(rgb2xyz(as_array)), rtol=0, atol=1e-5)
    # skimage writes the curve's threshold and slope with four digits, hence 0.01 of ±110
    lab = color.rgb_to_lab(colors)
    torch.testing.assert_close(lab, channels_first(rgb2lab(as_array)), rtol=0, atol=1e-2)
    rgb = color.lab_to_rgb(lab)
    back = channels_first(lab2rgb(lab.double().movedim(1, -1).numpy()))
    torch.testing.assert_close(rgb, back, rtol=0, atol=1e-3)


def test_known_lab_values():
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]).view(4, 3, 1, 1)
    # e.g. Lindbloom's CIE color calculator, sRGB and D65
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    lab = color.rgb_to_lab(rgb).view(4, 3)
    torch.testing.assert_close(lab, torch.tensor(expected), rtol=0, atol=0.02)


def test_lightness_of_gray_is_the_L_of_three_equal_channels():
    gray = gray_levels() / 255
    torch.testing.assert_close(
        color.lightness(gray), color.rgb_to_lab(gray.expand(1, 3, 16, 16))[:, :1]
    )


@pytest.mark.parametrize(("name", "outputs"), [("lab", 2), ("rgb", 3)])
def test_color_space_shapes_and_ranges(name, outputs):
    space = ColorSpace(name)
    assert (space.condition_channels, space.output_channels) == (1, outputs)
    condition, target = space.condition(gray_levels()), space.target(colors_8_bit(step=51))
    assert condition.shape == (1, 1, 16, 16)
    assert target.shape[1] == outputs
    assert condition.aminmax() == pytest.approx((-1, 1), abs=1e-5)
    assert -1 <= target.min() < -0.7
    assert 0.7 < target.max() <= 1


def test_lab_truth_with_its_own_lightness_comes_back_to_8_bits():
    colors = colors_8_bit(step=5)
    true_lightness = color.rgb_to_lab(colors / 255)[:, :1] / 50 - 1
    space = ColorSpace("lab")
    assert torch.equal(to_8_bit(space.to_rgb(true_lightness, space.target(colors))), colors)


def test_rgb_truth_comes_back_to_8_bits():
    space, colors = ColorSpace("rgb"), colors_8_bit(step=5)
    assert torch.equal(to_8_bit(space.to_rgb(None, space.target(colors))), colors)


@pytest.mark.parametrize("name", color.COLOR_SPACES)
def test_chroma_of_the_truth_is_its_a_and_b(name):
    space, colors = ColorSpace(name), colors_8_bit(step=51)
    expected = color.rgb_to_lab(colors / 255)[:, 1:]
    torch.testing.assert_close(space.chroma(space.target(colors)), expected, rtol=0, atol=1e-3)


def test_no_chroma_gives_the_gray_photograph_back():
    space = ColorSpace("lab")
    rgb = space.to_rgb(space.condition(gray_levels()), torch.zeros(1, 2, 16, 16))
    assert torch.equal(to_8_bit(rgb), gray_levels().expand(1, 3, 16, 16))


@pytest.mark.parametrize("name", color.COLOR_SPACES)
def test_colors_out_of_gamut_are_clipped(name):
    space = ColorSpace(name)
    condition = space.condition(gray_levels())
    for value in (-1.0, 1.0):
        output = torch.full((1, space.output_channels, 16, 16), value)
        rgb = space.to_rgb(condition, output)
        assert rgb.min() >= 0
        assert rgb.max() <= 1


def hues_at(lightness, chroma):
    """72 hues: [1, 3, 72, 1] Lab."""
    angles = torch.arange(0, 2 * math.pi, math.pi / 36)
    a, b = chroma * angles.cos(), chroma * angles.sin()
    return torch.stack([torch.full_like(a, lightness), a, b])[None, :, :, None]


@pytest.mark.parametrize("chroma", [30.0, 90.0, 400.0])
@pytest.mark.parametrize("lightness", [0.0, 1.0, 20.0, 50.0, 97.0, 100.0])
def test_a_color_out_of_gamut_keeps_lightness_and_hue(lightness, chroma):
    lab = hues_at(lightness, chroma)
    fitted = color.fit_gamut(lab)
    assert torch.equal(fitted[:, 0], lab[:, 0])
    torch.testing.assert_close(  # no turn, nor a flip
        fitted[:, 1] * lab[:, 2], fitted[:, 2] * lab[:, 1], rtol=0, atol=chroma * 1e-3
    )
    assert ((fitted[:, 1:] * lab[:, 1:]).sum(dim=1) >= 0).all()
    shown = color.rgb_to_lab(color.lab_to_rgb(fitted))
    torch.testing.assert_close(shown[:, 0], lab[:, 0], rtol=0, atol=0.2)


@pytest.mark.parametrize("lightness", [20.0, 50.0, 80.0])
def test_no_more_chroma_is_given_up_than_must_be(lightness):
    fitted = color.fit_gamut(hues_at(lightness, 200.0))
    more = torch.cat([fitted[:, :1], fitted[:, 1:] + hues_at(lightness, 1.0)[:, 1:]], dim=1)
    linear = color.xyz_to_linear(color.lab_to_xyz(more))
    assert ((linear < 0) | (linear > 1)).any(dim=1).all()


def test_colors_of_srgb_are_left_as_they_are():
    lab = color.rgb_to_lab(colors_8_bit(step=15) / 255)
    assert torch.equal(color.fit_gamut(lab), lab)


def test_each_picture_of_a_batch_is_fitted_by_itself():
    lab = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 200 - 60
    lab[:, 0] = lab[:, 0].clamp(0, 100)
    alone = [color.fit_gamut(picture[None]) for picture in lab]
    assert torch.equal(color.fit_gamut(lab), torch.cat(alone))


@pytest.mark.parametrize("name", color.COLOR_SPACES)
def test_color_is_computed_in_float32_under_autocast(name):
    space, gray, colors = ColorSpace(name), gray_levels(), colors_8_bit(step=17)

    def everything():
        condition, target = space.condition(gray), space.target(colors)
        output = target[:, :, :256].reshape(1, -1, 16, 16)
        return condition, target, space.to_rgb(condition, output)

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = everything()
    for a, b in zip(plain, cast, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


def test_half_precision_input_is_computed_in_float32():
    lab = color.rgb_to_lab(torch.rand(1, 3, 2, 2).bfloat16())
    assert lab.dtype == torch.float32
    assert color.lab_to_rgb(lab.half()).dtype == torch.float32


def test_conversions_have_finite_gradients_at_black_and_out_of_gamut():
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    color.linear_to_srgb(black).sum().backward()
    assert black.grad.isfinite().all()
    for image in (torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), -20.0)):
        image.requires_grad_()
        (color.lab_to_rgb(image).sum() + color.rgb_to_lab(image.clamp(0, 1)).sum()).backward()
        assert image.grad.isfinite().all()


def test_unknown_color_space_is_a_user_error():
    with pytest.raises(UserError, match=r"'yuv'.*lab, rgb"):
        ColorSpace("yuv")
