"""CIE76 and CIEDE2000 against published pairs and scikit-image."""

import pytest
import torch
from skimage.color import deltaE_cie76, deltaE_ciede2000

from pix2pix.model.color_difference import delta_e_76, delta_e_2000

# Sharma, Wu, Dalal 2005, table 1: those about the edges of the hue's mean and difference, and one
# pair of vivid and one of usual colors.
PUBLISHED = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, -1.1848, -84.8006), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
]


def pixel(lab: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(lab, dtype=torch.float64).view(1, 3, 1, 1)


@pytest.mark.parametrize(("first", "second", "expected"), PUBLISHED)
def test_ciede2000_gives_the_published_differences(first, second, expected):
    assert delta_e_2000(pixel(first), pixel(second)).item() == pytest.approx(expected, abs=5e-5)
    assert delta_e_2000(pixel(second), pixel(first)).item() == pytest.approx(expected, abs=5e-5)


def test_both_agree_with_skimage_all_over_the_space():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([100.0, 220, 220]).view(1, 3, 1, 1)
    lab = (torch.rand(3, 3, 60, 60, generator=generator, dtype=torch.float64) - 0.5) * scale
    other = lab + 30 * torch.randn(lab.shape, generator=generator, dtype=torch.float64)
    lab[:, 0] += 50
    lab[0, 1:, :20] = 0  # gray
    other[0, 1:, 10:30] = 0
    last = [image.movedim(1, -1).numpy() for image in (lab, other)]
    for ours, theirs in ((delta_e_76, deltaE_cie76), (delta_e_2000, deltaE_ciede2000)):
        expected = torch.from_numpy(theirs(*last))
        torch.testing.assert_close(ours(lab, other), expected, atol=1e-5, rtol=0)


def test_the_same_color_is_no_difference():
    lab = torch.rand(1, 3, 30, 30) * 100 - 40
    assert delta_e_2000(lab, lab).max() == 0
    assert delta_e_76(lab, lab).max() == 0
