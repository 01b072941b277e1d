"""Promises of a run's evaluation: the same report for any number of ranks, and figures that are
those of the photographs one by one.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from pix2pix.data.batches import EvaluationBatches, resize
from pix2pix.data.data_set import open_data
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.evaluation import baselines, run_evaluation
from pix2pix.evaluation.baselines import mean_ab, paint_one_color, paint_true_chroma
from pix2pix.evaluation.features import FeatureNetworks, frechet_distance, kernel_distance
from pix2pix.evaluation.metrics import chroma_histogram, hellinger, quantize
from pix2pix.evaluation.report import EvaluateOptions, make_report
from pix2pix.evaluation.run_evaluation import measure_run
from pix2pix.model.color import rgb_to_lab
from pix2pix.run.distributed import Distributed
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config

BASELINES = ("gray", "mean_color", "true_chroma")


@pytest.fixture(scope="module")
def run(tiny_shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("measured") / "run"
    run_ranks(fit, 1, tiny_config(tiny_shards, run))
    return run


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """The weights of a small network in Inception's place, in a file as Inception's are."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "stand_in.pth"
    torch.save(small_network().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def alone(run, tiny_shards, stand_in):
    """Report and scores of the train split, by one process."""
    return run_ranks(measured, 1, run, tiny_shards, stand_in)[0]


def small_network():
    return nn.Sequential(nn.Conv2d(3, 12, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def stand_in_networks(path):
    network = small_network()
    network.load_state_dict(torch.load(path, weights_only=True))
    return FeatureNetworks(
        features=lambda pictures: network(pictures.float() / 128 - 1),
        distances={"lpips": lambda a, b: (network(a) - network(b)).square().sum(dim=1)},
        weights={"fid": path.name, "kid": path.name, "lpips": path.name},
    )


def measured(run, shards, stand_in, split="train"):
    """Report and scores."""
    run_evaluation.load_networks = lambda *args: stand_in_networks(stand_in)
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    metrics = ("fid", "kid", "lpips")
    found = measure_run(run, [str(shards)], split, distributed, 2, 0, metrics, None)
    return found.report, found.scores


def assert_same(report, expected):
    for source, other in [(report, expected), *((report[b], expected[b]) for b in BASELINES)]:
        figures = {name: value for name, value in other.items() if isinstance(value, float)}
        assert len(figures) >= 20
        for name, value in figures.items():
            assert source[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_gives_every_figure_of_one(
    run, tiny_shards, stand_in, alone, world_size
):
    expected, _ = alone
    assert expected["num_samples"] == 24
    for report, _ in run_ranks(measured, world_size, run, tiny_shards, stand_in):
        assert_same(report, expected)
        for baseline in BASELINES:  # no network's rounding: bit for bit, where figures are means
            assert report[baseline]["psnr"] == expected[baseline]["psnr"]


def test_set_figures_are_those_of_the_gathered_features(alone):
    report, table = alone
    assert table.positions.tolist() == list(range(24))
    features, reference = (table.columns[f"{name}/features"] for name in ("colorized", "truth"))
    assert features.shape == (24, 12)
    assert report["fid"] == pytest.approx(frechet_distance(features, reference))
    assert report["kid"] == pytest.approx(kernel_distance(features, reference).mean)
    assert report["true_chroma"]["fid"] < report["gray"]["fid"]
    assert report["lpips"] == pytest.approx(table.columns["colorized/lpips"].mean())
    assert report["true_chroma"]["lpips"] < report["gray"]["lpips"]


def conversions_to_lab(run, shards):
    """Pictures that an evaluation converts to Lab, by photograph."""
    count = 0
    for module in (baselines, run_evaluation):

        def counted(rgb, convert=module.rgb_to_lab):
            nonlocal count
            count += len(rgb)
            return convert(rgb)

        module.rgb_to_lab = counted
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    report = measure_run(run, [str(shards)], "val", distributed, num_workers=0).report
    return count / report["num_samples"]


def test_each_distinct_picture_is_converted_to_lab_once(run, tiny_shards):
    # The truth as stored for its mean and for its chroma, as saved, and four colorings.
    assert run_ranks(conversions_to_lab, 1, run, tiny_shards) == [7]


def direct_figures(shards):
    """Of the val split: PSNR of the baselines, and how far gray is in chroma from the truth."""
    reader = ShardReader(open_data([str(shards)], "val", 64), 64)
    batch = EvaluationBatches(reader, 0, 1, 7)[0]
    gray, color = resize(batch.gray, 64), resize(batch.color, 64)
    ab = mean_ab(color).mean(dim=0).tolist()
    truth = quantize(color.float() / 255)
    paintings = {
        "mean_color": quantize(paint_one_color(gray, (ab[0], ab[1]))),
        "true_chroma": quantize(paint_true_chroma(gray, color)),
    }
    histograms = [chroma_histogram(rgb_to_lab(p)).sum(0) for p in (paintings["mean_color"], truth)]
    psnr = {
        name: peak_signal_noise_ratio(
            rgb, truth, data_range=1.0, reduction="none", dim=(1, 2, 3)
        ).mean()
        for name, rgb in paintings.items()
    }
    return {name: value.item() for name, value in psnr.items()}, hellinger(*histograms).item(), ab


def test_baselines_are_what_they_say(run, tiny_shards, stand_in):
    report, _ = run_ranks(measured, 1, run, tiny_shards, stand_in, "val")[0]
    psnr, distance, ab = run_ranks(direct_figures, 1, tiny_shards)[0]
    for name, value in psnr.items():
        assert report[name]["psnr"] == pytest.approx(value, rel=1e-5)
    assert report["mean_color"]["histogram_distance_of_set"] == pytest.approx(distance, abs=1e-6)
    assert f"a {ab[0]:.3f}, b {ab[1]:.3f}" in report["conventions"]["mean_color"]
    # These colors are so vivid that Rec. 601 luma is far from their lightness.
    assert report["true_chroma"]["psnr"] > report["gray"]["psnr"] + 3
    for name in ("colorfulness", "colorfulness_abs"):
        difference = abs(report[name] - report[f"{name}_truth"])
        assert report[f"delta_{name}_of_means"] == pytest.approx(difference)
        assert report[f"delta_{name}"] >= difference - 1e-9


def test_no_other_constant_has_a_smaller_squared_error_than_the_mean():
    color = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8)
    lab = rgb_to_lab(color.double() / 255)[:, 1:]
    ab = mean_ab(color).mean(dim=0)

    def error(constant):
        return (lab - constant.view(1, 2, 1, 1)).square().sum(dim=1).mean()

    for shift in ([1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]):
        assert error(ab) < error(ab + torch.tensor(shift))


def report_of(options):
    make_report(options, Distributed(timeout_minutes=1, num_threads=1))


def options_for(run, shards, folder, **changes):
    values = {"csv": folder / "table.csv", "sheet": folder / "sheet.png"} | changes
    return EvaluateOptions(
        run_dir=run, shards=(str(shards),), out=folder / "report.json", num_workers=0, **values
    )


def test_every_output_is_written_and_nothing_else_is_left(run, tiny_shards, tmp_path):
    run_ranks(report_of, 2, options_for(run, tiny_shards, tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "sheet.png", "table.csv"]
    report = json.loads((tmp_path / "report.json").read_text())
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report["num_samples"] == 7
    reader = ShardReader(open_data([str(tiny_shards)], "val", 64), 64)
    assert [row["key"] for row in rows] == list(EvaluationBatches(reader, 0, 1, 7)[0].keys)
    assert sorted(row["source"] for row in rows)[0].endswith("photo 001.jpg")
    assert len({row["source"] for row in rows}) == 7
    metrics = rows[0].keys() - {"key", "source"}
    assert {"psnr", "ssim", "delta_e", "colorfulness_abs", "histogram_distance"} <= metrics
    for metric in metrics:
        mean = np.mean([float(row[metric]) for row in rows])
        assert report[metric] == pytest.approx(mean, rel=1e-4, abs=1e-6)


def failure_of(options):
    try:
        report_of(options)
    except UserError as error:
        return str(error)
    return "no error"


def test_missing_weights_are_told_before_the_work_starts(run, tiny_shards, tmp_path):
    options = options_for(run, tiny_shards, tmp_path, metrics=("kid",), weights=tmp_path)
    messages = run_ranks(failure_of, 2, options)
    assert messages[0] == messages[1]
    assert f"weights-inception-2015-12-05-6726825d.pth, and {tmp_path} has none" in messages[0]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written_is_told_before_the_work_starts(run, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "sheet.png").mkdir()
    for change, words in (
        ({"csv": tmp_path / "file" / "table.csv"}, "can't make the folder"),
        ({"sheet": tmp_path / "sheet.png"}, "can't write"),
    ):
        options = options_for(run, tmp_path / "no shards", tmp_path, **({"sheet": None} | change))
        assert words in run_ranks(failure_of, 2, options)[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sheet": "sheet.jpg"}, "--sheet sheet.jpg: give a name that ends in .png"),
        ({"csv": "table.json"}, "--csv table.json: give a name that ends in .csv"),
        ({"batch_size": 0}, "--batch_size 0: give 1 or more"),
    ],
)
def test_a_wrong_flag_is_a_clear_error(tmp_path, change, words):
    change = {name: Path(v) if isinstance(v, str) else v for name, v in change.items()}
    with pytest.raises(UserError, match=words):
        options_for(tmp_path, tmp_path, tmp_path, **change)
