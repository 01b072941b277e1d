"""A run measured beside the baselines: every metric, and by which conventions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pix2pix.config import TrainConfig
from pix2pix.data.batches import EvaluationBatches, resize
from pix2pix.data.data_set import open_data
from pix2pix.data.order import samples_at
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.evaluation import ked
from pix2pix.evaluation.baselines import leave_gray, mean_ab, paint_one_color, paint_true_chroma
from pix2pix.evaluation.conventions import conventions
from pix2pix.evaluation.evaluation import (
    EvaluationLoop,
    Measure,
    Scores,
    colorize_batch,
    evaluation_mode,
)
from pix2pix.evaluation.features import (
    FeatureNetworks,
    describe,
    frechet_distance,
    kernel_distance,
    load_networks,
)
from pix2pix.evaluation.metrics import (
    chroma_histogram,
    detailed_metrics,
    hellinger,
    quantize,
    to_bytes,
)
from pix2pix.evaluation.saturation_curve import curve, measure_curve, targets
from pix2pix.model.color import ColorSpace, rgb_to_lab
from pix2pix.model.encoder_weights import packaged_file
from pix2pix.run.distributed import Distributed
from pix2pix.run.run_directory import versions
from pix2pix.run.supply import cached, fetch_split
from pix2pix.run.weights import load_generator, newest_checkpoint

# Columns of scores are RUN/psnr and so on, BASELINE/psnr, and TRUTH/chroma_histogram.
RUN, TRUTH = "colorized", "truth"
BASELINES = ("gray", "mean_color", "true_chroma")
HISTOGRAM, FEATURES, KED_FEATURES = "chroma_histogram", "features", "ked_features"
CURVE = "curve"

Paint = Callable[[Tensor, Tensor], Tensor]
"""gray [B, 1, S, S] and the truth [B, 3, S, S], uint8 → sRGB [B, 3, S, S] in [0, 1]."""


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found: the report, its rows, and what it takes to show photographs.

    scores: of all photographs, on rank 0; elsewhere empty.
    """

    report: dict[str, Any]
    scores: Scores
    reader: ShardReader
    generator: nn.Module
    config: TrainConfig

    def sources(self, positions: NDArray[np.int64]) -> list[tuple[str, str]]:
        """Name "SHARD/KEY" of each photograph and the file that it was made of."""
        samples = samples_at(self.reader.sample_counts, positions)
        return [
            self.reader.source(shard, index)
            for shard, index in zip(samples.shard.tolist(), samples.index.tolist(), strict=True)
        ]

    def pictures(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Gray [N, 1, S, S], colorized and true [N, 3, S, S] photographs, uint8 on the CPU.

        positions: which of the split, in manifest order.
        """
        device = next(self.generator.parameters()).device
        batch = EvaluationBatches(self.reader, 0, 1, len(positions), positions)[0]
        if batch.broken:
            raise UserError(batch.broken)
        gray, color = (
            resize(p.to(device), self.config.image_size) for p in (batch.gray, batch.color)
        )
        with evaluation_mode(self.generator):
            rgb = colorize_batch(self.generator, ColorSpace(self.config.color_space), gray)
        return gray.cpu(), to_bytes(rgb).cpu(), color.cpu()


def measure_run(
    run_dir: Path,
    shards: Sequence[str],
    split: str,
    distributed: Distributed,
    batch_size: int = 16,
    num_workers: int | None = None,
    metrics: Sequence[str] = (),
    weights: Path | None = None,
    cache: tuple[str | None, float | None] = (None, None),
) -> Evaluated:
    """Measure a run's newest checkpoint and the baselines, and say by which conventions.

    metrics: of `features.NEEDED`, besides those that need no weights; weights: the folder of
    theirs. cache: folder and size in GiB, as for a training. Raises UserError, on every rank, for a
    run, shards or weights that can't be read.
    """
    networks = _load_networks(metrics, weights, distributed)
    checkpoint = distributed.run_on_main(lambda: newest_checkpoint(run_dir))
    generator, config, step = load_generator(run_dir, checkpoint)
    generator.to(distributed.device)
    opening = partial(open_data, shards, split, config.image_size)
    data_sets = cached(distributed.run_on_main(opening), *cache, distributed)
    reader = ShardReader(data_sets, config.image_size)
    fetch_split(reader, distributed)
    loop = EvaluationLoop(reader, config.image_size, distributed, batch_size, num_workers)
    with evaluation_mode(generator):
        ab = _mean_ab(loop)
        paints = _paints(generator, ColorSpace(config.color_space), ab)
        scores = loop.score(_measure_all(paints, networks), title="measured")
    report = {
        "num_samples": reader.num_samples,
        **distributed.run_on_main(lambda: _figures(scores, metrics)),
        "run_dir": str(run_dir),
        "step": step,
        "split": split,
        "shards_digest": reader.digest,
        "conventions": conventions(config, networks.weights, reader.num_samples, ab),
        "versions": versions(),
    }
    return Evaluated(report, scores, reader, generator, config)


def _figures(scores: Scores, metrics: Sequence[str]) -> dict[str, Any]:
    """Return the run's figures, those of each baseline under its name, and the run's curve."""
    run = summarize(scores, RUN, metrics)
    points = curve(scores.of(CURVE))
    return {
        **run,
        **_ked_floor(scores),
        **{name: summarize(scores, name, metrics) for name in BASELINES},
        CURVE: points,
        f"{CURVE}_targets": targets(points, run["colorfulness_truth"]),
    }


def _paints(
    generator: nn.Module, color_space: ColorSpace, ab: tuple[float, float]
) -> dict[str, Paint]:
    """Return the run's coloring and the baselines, by name; ab: the one color of `mean_color`."""
    return {
        RUN: lambda gray, color: colorize_batch(generator, color_space, gray),
        "gray": lambda gray, color: leave_gray(gray),
        "mean_color": lambda gray, color: paint_one_color(gray, ab),
        "true_chroma": paint_true_chroma,
    }


def _load_networks(
    metrics: Sequence[str], weights: Path | None, distributed: Distributed
) -> FeatureNetworks:
    networks, error = None, None
    try:
        networks = load_networks(metrics, weights, distributed.device)
    except UserError as missing:  # on this node, perhaps
        error = str(missing)
    distributed.raise_on_all_ranks(error)
    networks = cast("FeatureNetworks", networks)
    # The extra may be missing on one node: then no rank measures it.
    if not all(distributed.all_gather_object(ked.is_installed())):
        return networks
    file = describe(cast("Path", packaged_file(ked.NETWORK)))
    return replace(
        networks,
        ked=ked.load_features(distributed.device),
        weights={**networks.weights, ked.KED: file},
    )


def _mean_ab(loop: EvaluationLoop) -> tuple[float, float]:
    """Return the mean a and b of the split's true photographs."""
    scores = loop.score(lambda gray, color: {"ab": mean_ab(color)})
    a, b = loop.distributed.run_on_main(lambda: scores.columns["ab"].mean(axis=0).tolist())
    return a, b


def _measure_all(paints: Mapping[str, Paint], networks: FeatureNetworks) -> Measure:
    """Return every metric of every coloring, and the statistics of the truth."""

    def measure(gray: Tensor, color: Tensor) -> dict[str, Tensor]:
        truth = quantize(color.float() / 255)
        paintings = {name: quantize(paint(gray, color)) for name, paint in paints.items()}
        # The colorings of one photograph at a time: few enough pixels for a processor's caches.
        rows = [
            _measure_photograph(
                {name: rgb[i : i + 1] for name, rgb in paintings.items()}, truth[i : i + 1]
            )
            for i in range(len(truth))
        ]
        columns = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return columns | _network_columns(paintings, truth, networks)

    return measure


def _measure_photograph(paintings: Mapping[str, Tensor], truth: Tensor) -> dict[str, Tensor]:
    """Measure what needs no network; paintings, truth: [1, 3, S, S] as `quantize` gives them."""
    lab_truth = rgb_to_lab(truth)
    columns = {f"{TRUTH}/{HISTOGRAM}": chroma_histogram(lab_truth)}
    for name, rgb in paintings.items():
        lab = rgb_to_lab(rgb)
        values = detailed_metrics(rgb, truth, lab, lab_truth)
        values[HISTOGRAM] = chroma_histogram(lab)
        columns |= {f"{name}/{metric}": value for metric, value in values.items()}
        if name == RUN:
            points = measure_curve(lab, truth, lab_truth)
            columns |= {f"{CURVE}/{metric}": value for metric, value in points.items()}
    return columns


def _network_columns(
    paintings: Mapping[str, Tensor], truth: Tensor, networks: FeatureNetworks
) -> dict[str, Tensor]:
    """Measure what rests on networks, of a batch."""
    columns = {}
    if networks.features is not None:
        for name, rgb in {TRUTH: truth, **paintings}.items():
            columns[f"{name}/{FEATURES}"] = networks.features(to_bytes(rgb))
    if networks.ked is not None:
        for name, rgb in {TRUTH: truth, **paintings}.items():
            columns[f"{name}/{KED_FEATURES}"] = networks.ked(rgb)
    for metric, distance in networks.distances.items():
        for name, rgb in paintings.items():
            columns[f"{name}/{metric}"] = distance(rgb, truth).double()
    return columns


def photo_columns(scores: Scores, name: str) -> dict[str, np.ndarray]:
    """Return the metrics of each photograph, [N] each: of the run or of a baseline."""
    return {metric: column for metric, column in scores.of(name).items() if column.ndim == 1}


def summarize(scores: Scores, name: str, metrics: Sequence[str] = ()) -> dict[str, float]:
    """Return the figures of the run or of a baseline.

    The mean over photographs of each metric by its name; `…_of_means` and `…_of_set`, and those of
    `metrics` that are fid and kid, and ked_lite0, are figures of the whole set.
    """
    figures = {
        metric: float(column.mean()) for metric, column in photo_columns(scores, name).items()
    }
    for metric in ("colorfulness", "colorfulness_abs"):
        difference = figures[metric] - figures[f"{metric}_truth"]
        figures[f"delta_{metric}_of_means"] = abs(difference)
    histograms = (
        torch.from_numpy(scores.columns[f"{source}/{HISTOGRAM}"].sum(axis=0))
        for source in (name, TRUTH)
    )
    figures["histogram_distance_of_set"] = hellinger(*histograms).item()
    if "fid" in metrics or "kid" in metrics:
        features, reference = (scores.columns[f"{source}/{FEATURES}"] for source in (name, TRUTH))
        if "fid" in metrics:
            figures["fid"] = frechet_distance(features, reference)
        if "kid" in metrics:
            figures["kid"], figures["kid_deviation"] = kernel_distance(features, reference)
    if f"{TRUTH}/{KED_FEATURES}" in scores.columns and len(scores.positions) > 1:
        rows = (scores.columns[f"{source}/{KED_FEATURES}"] for source in (name, TRUTH))
        figures[ked.KED] = ked.paired_distance(*rows)
    return figures


def _ked_floor(scores: Scores) -> dict[str, float]:
    """Return what two halves of the true photographs have: mean and deviation, if measured."""
    features = scores.columns.get(f"{TRUTH}/{KED_FEATURES}")
    if features is None or len(features) < 4:
        return {}
    mean, deviation = ked.floor(features)
    return {f"{ked.KED}_floor": mean, f"{ked.KED}_floor_deviation": deviation}
