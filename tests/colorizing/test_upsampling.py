"""Promises of stretching chroma: edges stay where lightness has them, the rest is bicubic."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d

from pix2pix.colorizing.upsampling import GuidedChroma

FACTOR = 8  # photograph's pixels per pixel of the network
EDGE = 44  # column; not where two pixels of the network meet


def two_tones(size=96):
    """Chroma [2, H, W] and lightness [H, W] of a photograph of two flat colors, and both small."""
    right = torch.arange(size) >= EDGE
    lightness = torch.where(right, 75.0, 35.0).expand(size, size)
    chroma = torch.stack([torch.where(right, 30.0, -20.0), torch.where(right, -40.0, 10.0)])
    chroma = chroma[:, None].expand(2, size, size)
    return chroma, lightness, reduced(chroma), reduced(lightness[None])[0]


def reduced(planes):
    return avg_pool2d(planes, FACTOR)


def bicubic(chroma, size):
    planes = [
        Image.fromarray(plane.numpy()).resize(size, Image.Resampling.BICUBIC) for plane in chroma
    ]
    return torch.from_numpy(np.stack(planes))


def distance(chroma, truth):
    return (chroma - truth).norm(dim=0).mean(dim=0)  # by column


def test_color_does_not_bleed_across_an_edge_of_lightness():
    truth, lightness, chroma, small = two_tones()
    guided = GuidedChroma(chroma, small, (96, 96)).rows(0, lightness)
    error, blurred = distance(guided, truth), distance(bicubic(chroma, (96, 96)), truth)
    near = slice(EDGE - FACTOR, EDGE + FACTOR)
    assert blurred[near].mean() > 12  # of a step of 71
    assert error[near].mean() < 0.5 * blurred[near].mean()
    steps = (guided[0, 48, 1:] - guided[0, 48, :-1]).abs()
    assert steps.argmax() == EDGE - 1
    assert steps.max() > 0.5 * 50


def test_far_from_the_edge_the_color_is_the_networks():
    truth, lightness, chroma, small = two_tones()
    error = distance(GuidedChroma(chroma, small, (96, 96)).rows(0, lightness), truth)
    assert error[: EDGE - 4 * FACTOR].max() < 0.5
    assert error[EDGE + 4 * FACTOR :].max() < 0.5


def random_planes(size=12, seed=0):
    random = torch.Generator().manual_seed(seed)
    chroma = torch.randn(2, size, size, generator=random) * 20
    return chroma, torch.rand(size, size, generator=random) * 100


def test_at_the_networks_size_the_chroma_is_unchanged():
    chroma, small = random_planes()
    assert torch.equal(GuidedChroma(chroma, small, (12, 12)).rows(0, small), chroma)


def test_flat_lightness_leaves_plain_bicubic():
    chroma, _ = random_planes()
    guided = GuidedChroma(chroma, torch.full((12, 12), 40.0), (50, 30))
    result = guided.rows(0, torch.full((30, 50), 40.0))
    torch.testing.assert_close(result, bicubic(chroma, (50, 30)), rtol=0, atol=1e-3)


def test_one_color_stays_one_color_under_any_lightness():
    _, small = random_planes()
    chroma = torch.tensor([12.0, -30.0]).view(2, 1, 1).expand(2, 12, 12)
    random = torch.rand(40, 50, generator=torch.Generator().manual_seed(1)) * 100
    result = GuidedChroma(chroma, small, (50, 40)).rows(0, random)
    torch.testing.assert_close(result, chroma[:, :1, :1].expand(2, 40, 50), rtol=0, atol=1e-2)


@pytest.mark.parametrize("height", [1, 7, 16, 97])
def test_rows_are_the_same_however_they_are_grouped(height):
    chroma, small = random_planes()
    photo = torch.rand(97, 61, generator=torch.Generator().manual_seed(1)) * 100
    guided = GuidedChroma(chroma, small, (61, 97))
    strips = [guided.rows(top, photo[top : top + height]) for top in range(0, 97, height)]
    torch.testing.assert_close(torch.cat(strips, dim=1), guided.rows(0, photo), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (1, 200)])
def test_photographs_smaller_than_the_network_are_no_special_case(size):
    chroma, small = random_planes()
    lightness = torch.full((size[1], size[0]), 50.0)
    result = GuidedChroma(chroma, small, size).rows(0, lightness)
    assert result.shape == (2, size[1], size[0])
    assert result.isfinite().all()
