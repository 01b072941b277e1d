"""FID and KID against torch-fidelity's and torchmetrics' own functions on the same features."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from pix2pix.evaluation.features import frechet_distance, kernel_distance


def features(num_pictures: int, size: int = 24, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(num_pictures)
    mixed = random.normal(size=(num_pictures, size)) @ random.normal(size=(size, size))
    return (np.maximum(mixed, 0) + shift).astype(np.float32)


@pytest.mark.parametrize(("num_pictures", "others"), [(300, 200), (30, 25), (12, 300), (10, 8)])
def test_fid_agrees_with_torch_fidelity_and_torchmetrics(num_pictures, others):
    one, other = features(num_pictures), features(others, shift=0.3)
    found = frechet_distance(one, other)
    statistics = [fid_features_to_statistics(torch.from_numpy(a).double()) for a in (one, other)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert found == pytest.approx(expected, rel=1e-5)
    tensors = [torch.from_numpy(s[name]) for s in statistics for name in ("mu", "sigma")]
    assert found == pytest.approx(_compute_fid(*tensors).item(), rel=1e-5)


def test_fid_of_a_set_with_itself_is_nothing_and_of_a_shift_its_square():
    one = features(100)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one.astype(np.float64) + 2) == pytest.approx(24 * 4)


def test_kid_of_subsets_is_that_of_torch_fidelity():
    one, other = features(90), features(70, shift=0.2)
    expected = kid_features_to_metric(
        *(torch.from_numpy(a).double() for a in (one, other)),
        kid_subsets=7,
        kid_subset_size=40,
        verbose=False,
    )
    found = kernel_distance(one, other, num_subsets=7, subset_size=40)
    assert found.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-12)
    assert found.deviation == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-12)
    assert found == kernel_distance(one, other, num_subsets=7, subset_size=40)


def test_kid_of_few_pictures_is_that_of_all_at_once():
    one, other = features(50), features(51, shift=0.2)[:50]
    expected = poly_mmd(*(torch.from_numpy(a).double() for a in (one, other))).item()
    assert kernel_distance(one, other) == (pytest.approx(expected, rel=1e-12), 0)
