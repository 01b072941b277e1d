"""Perceived color differences: CIE76 and CIEDE2000 on CIE Lab tensors."""

import math

import torch
from torch import Tensor


def delta_e_76(lab: Tensor, other: Tensor) -> Tensor:
    """Return CIE76, the Euclidean distance in Lab: two [B, 3, H, W] → [B, H, W]."""
    return (lab - other).square().sum(dim=1).sqrt()


def delta_e_2000(lab: Tensor, other: Tensor) -> Tensor:
    """Return CIEDE2000 with kL = kC = kH = 1: two [B, 3, H, W] → [B, H, W]; 1 is just visible.

    Equation numbers are those of Sharma, Wu, Dalal 2005, "The CIEDE2000 color-difference formula".
    Angles are in radians.
    """
    L1, a1, b1 = lab.unbind(dim=1)
    L2, a2, b2 = other.unbind(dim=1)
    gray_axis = 0.5 * (1 - _saturation((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2))  # (4)
    a1, a2 = (1 + gray_axis) * a1, (1 + gray_axis) * a2  # (5)
    C1, C2 = torch.hypot(a1, b1), torch.hypot(a2, b2)  # (6)
    h1, h2 = (torch.atan2(b, a) % math.tau for a, b in ((a1, b1), (a2, b2)))  # (7)

    has_hues = C1 * C2 > 0
    turn = torch.where((h2 - h1).abs() > math.pi, math.tau, 0.0)  # the shorter way around
    dh = torch.where(has_hues, h2 - h1 - turn * (h2 - h1).sign(), 0.0)  # (10)
    dH = 2 * (C1 * C2).sqrt() * (dh / 2).sin()  # (11)
    # (14); a full turn does not change the cosines below, but (16) needs [0, 2π).
    h = torch.where(has_hues, (h1 + h2 + turn) / 2, h1 + h2) % math.tau

    L, C = (L1 + L2) / 2, (C1 + C2) / 2  # (12), (13)
    degree = math.pi / 180
    T = (  # (15)
        1
        - 0.17 * (h - 30 * degree).cos()
        + 0.24 * (2 * h).cos()
        + 0.32 * (3 * h + 6 * degree).cos()
        - 0.20 * (4 * h - 63 * degree).cos()
    )
    around_blue = 30 * degree * (-(((h / degree - 275) / 25).square())).exp()  # (16)
    S_L = 1 + 0.015 * (L - 50).square() / (20 + (L - 50).square()).sqrt()  # (18)
    S_C, S_H = 1 + 0.045 * C, 1 + 0.015 * C * T  # (19), (20)
    R_T = -2 * (2 * around_blue).sin() * _saturation(C)  # (17), (21)
    dL, dC, dH = (L2 - L1) / S_L, (C2 - C1) / S_C, dH / S_H
    # (22); for equal colors rounding may give a value slightly below 0.
    return (dL.square() + dC.square() + dH.square() + R_T * dC * dH).clamp(min=0).sqrt()


def _saturation(chroma: Tensor) -> Tensor:
    """Return the term of (4) and (17) that grows from 0 for grays to 1 for vivid colors."""
    seventh = chroma**7
    return (seventh / (seventh + 25.0**7)).sqrt()
