"""The curve between fidelity and color: one run, its chroma made weaker and stronger.

PSNR and colorfulness pull against each other: stronger colors that are wrong cost more. So runs
are compared by their curves, as detectors are by theirs, and not by the point each happens to hit.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from numpy.typing import NDArray
from torch import Tensor

from pix2pix.evaluation.metrics import chroma_error, colorfulness, psnr, quantize
from pix2pix.model.color import lab_to_rgb, rgb_to_lab

SATURATIONS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0)
COLORFUL_SHARE = 0.85  # of the truth's colorfulness
FAITHFUL_PSNR = 24.0  # dB; what print reaches at its most faithful
COLORFUL, FAITHFUL = "at_85_percent_colorfulness", "at_24_db"

Point = Mapping[str, float]
"""saturation, psnr, colorfulness and chroma_error: means over photographs."""


def saturate(lab: Tensor, saturation: float) -> Tensor:
    """Scale the chroma of pictures in CIE Lab, [B, 3, H, W] → sRGB in [0, 1]; L and hue stay.

    A color that sRGB does not have is clipped, as a network's own is (`color.lab_to_rgb`).
    """
    return lab_to_rgb(torch.cat([lab[:, :1], saturation * lab[:, 1:]], dim=1))


def measure_curve(lab: Tensor, truth: Tensor, lab_truth: Tensor) -> dict[str, Tensor]:
    """Measure what each saturation makes of pictures: columns, [B, len(SATURATIONS)] each.

    lab: of the pictures; truth: as `quantize` gives it, and its Lab.
    """
    points = []
    for saturation in SATURATIONS:
        rgb = quantize(saturate(lab, saturation))
        points.append(
            {
                "psnr": psnr(rgb, truth),
                "chroma_error": chroma_error(rgb_to_lab(rgb), lab_truth),
                "colorfulness": colorfulness(rgb),
            }
        )
    return {name: torch.stack([point[name] for point in points], dim=1) for name in points[0]}


def curve(columns: Mapping[str, NDArray]) -> list[dict[str, float]]:
    """Return the points of the curve, from the scores of every photograph."""
    means = {name: column.mean(axis=0) for name, column in columns.items()}
    return [
        {"saturation": saturation, **{name: float(mean[i]) for name, mean in means.items()}}
        for i, saturation in enumerate(SATURATIONS)
    ]


def best_at_colorfulness(points: Sequence[Point], least: float) -> dict[str, float] | None:
    """Return the point of the highest PSNR among those at least that colorful; None: there is none.

    Between two points the curve is taken as straight.
    """
    return _best(points, "colorfulness", least, "psnr")


def best_at_psnr(points: Sequence[Point], least: float) -> dict[str, float] | None:
    """Return the most colorful point of at least that PSNR in dB; None: there is none."""
    return _best(points, "psnr", least, "colorfulness")


def targets(
    points: Sequence[Point], colorfulness_truth: float
) -> dict[str, dict[str, float] | None]:
    """Return the two points to compare runs by; None where the curve does not get there."""
    return {
        COLORFUL: best_at_colorfulness(points, COLORFUL_SHARE * colorfulness_truth),
        FAITHFUL: best_at_psnr(points, FAITHFUL_PSNR),
    }


def _best(
    points: Sequence[Point], bound: str, least: float, wanted: str
) -> dict[str, float] | None:
    candidates = [dict(point) for point in points if point[bound] >= least]
    for one, other in pairwise(points):
        if (one[bound] < least) != (other[bound] < least):
            share = (least - one[bound]) / (other[bound] - one[bound])
            candidates.append({name: one[name] + share * (other[name] - one[name]) for name in one})
    return max(candidates, key=lambda point: point[wanted], default=None)
