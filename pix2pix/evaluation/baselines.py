"""Baselines of a colorizer: no color, one color for all, and the true chroma.

gray is [B, 1, S, S] and color [B, 3, S, S], both uint8; results are sRGB [B, 3, S, S] in [0, 1].
"""

import torch
from torch import Tensor

from pix2pix.model.color import lab_to_rgb, lightness, rgb_to_lab


def leave_gray(gray: Tensor) -> Tensor:
    """Leave the photograph as it is: the baseline that a colorizer must beat."""
    return (gray.float() / 255).expand(-1, 3, -1, -1)


def paint_one_color(gray: Tensor, ab: tuple[float, float]) -> Tensor:
    """Paint the same a and b (CIE Lab) everywhere, as a network does that learned only a mean."""
    L = lightness(gray.float() / 255)
    return lab_to_rgb(torch.cat([L, *(torch.full_like(L, value) for value in ab)], dim=1))


def paint_true_chroma(gray: Tensor, color: Tensor) -> Tensor:
    """Paint the truth's a and b on the gray picture's lightness: no `lab` network can do better.

    The two differ from the truth by the JPEG encoding of the gray picture, and by Rec. 601 luma
    not being CIE lightness.
    """
    chroma = rgb_to_lab(color.float() / 255)[:, 1:]
    return lab_to_rgb(torch.cat([lightness(gray.float() / 255), chroma], dim=1))


def mean_ab(color: Tensor) -> Tensor:
    """Return the mean a and b of each photograph: [B, 2] float64."""
    return rgb_to_lab(color.float() / 255)[:, 1:].mean(dim=(2, 3), dtype=torch.float64)
