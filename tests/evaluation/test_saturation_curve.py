"""Promises of the saturation curve: it is of the run's own pictures, and read without a guess."""

import numpy as np
import pytest
import torch

from pix2pix.evaluation.metrics import colorfulness, psnr, quantize
from pix2pix.evaluation.saturation_curve import (
    COLORFUL,
    FAITHFUL,
    SATURATIONS,
    best_at_colorfulness,
    best_at_psnr,
    curve,
    measure_curve,
    saturate,
    targets,
)
from pix2pix.model.color import rgb_to_lab

FALLING = [
    {"saturation": 0.0, "psnr": 22.0, "colorfulness": 0.0},
    {"saturation": 0.5, "psnr": 25.0, "colorfulness": 20.0},
    {"saturation": 1.0, "psnr": 23.0, "colorfulness": 40.0},
]


def pictures(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return quantize(0.25 + 0.5 * torch.rand(2, 3, 16, 16, generator=random))


def test_chroma_is_scaled_and_lightness_and_hue_stay():
    rgb = pictures(0)
    lab, half = rgb_to_lab(rgb), rgb_to_lab(saturate(rgb_to_lab(rgb), 0.5))
    assert torch.allclose(half[:, :1], lab[:, :1], atol=1e-3)
    assert torch.allclose(half[:, 1:], lab[:, 1:] / 2, atol=1e-3)


def test_the_curve_passes_through_the_run_and_begins_at_gray():
    rgb, truth = pictures(1), pictures(2)
    columns = measure_curve(rgb_to_lab(rgb), truth, rgb_to_lab(truth))
    points = curve({name: column.numpy() for name, column in columns.items()})
    assert [point["saturation"] for point in points] == list(SATURATIONS)
    own = points[SATURATIONS.index(1.0)]
    assert own["psnr"] == pytest.approx(float(psnr(rgb, truth).mean()), abs=1e-6)
    assert own["colorfulness"] == pytest.approx(float(colorfulness(rgb).mean()), abs=1e-6)
    assert points[0]["colorfulness"] < 1
    colors = [point["colorfulness"] for point in points]
    assert np.all(np.diff(colors) > 0)


def test_the_best_point_may_lie_between_two_that_were_measured():
    found = best_at_colorfulness(FALLING, 30.0)
    assert found == {"saturation": 0.75, "psnr": 24.0, "colorfulness": 30.0}
    found = best_at_psnr(FALLING, 24.0)
    assert found == {"saturation": 0.75, "psnr": 24.0, "colorfulness": 30.0}


def test_a_measured_point_wins_where_it_is_better():
    assert best_at_colorfulness(FALLING, 10.0) == FALLING[1]
    assert best_at_psnr(FALLING, 22.5)["colorfulness"] == 40.0


def test_what_the_curve_does_not_reach_is_none():
    assert targets(FALLING, colorfulness_truth=100.0)[COLORFUL] is None
    dull = [point | {"psnr": 20.0} for point in FALLING]
    assert targets(dull, colorfulness_truth=40.0)[FAITHFUL] is None
