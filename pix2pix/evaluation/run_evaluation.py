"""A run measured beside the baselines: every metric, and by which conventions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pix2pix.config import TrainConfig
from pix2pix.data.batches import EvaluationBatches, resize
from pix2pix.data.data_set import open_data
from pix2pix.data.order import samples_at
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.evaluation.baselines import leave_gray, mean_ab, paint_one_color, paint_true_chroma
from pix2pix.evaluation.evaluation import EvaluationLoop, Measure, colorize_batch, evaluation_mode
from pix2pix.evaluation.feature_networks import FeatureNetworks, load_networks
from pix2pix.evaluation.metrics import chroma_histogram, detailed_metrics, quantize, to_bytes
from pix2pix.evaluation.saturation_curve import curve, measure_curve, targets
from pix2pix.evaluation.scores import Scores, ScoreStore
from pix2pix.evaluation.summary import (
    BASELINES,
    CURVE,
    FEATURES,
    HISTOGRAM,
    RUN,
    TRUTH,
    conventions,
    summarize,
)
from pix2pix.model.color import ColorSpace, rgb_to_lab
from pix2pix.run.checkpoint import load_generator, newest_checkpoint
from pix2pix.run.checkpoint_files import STATE_FILE
from pix2pix.run.distributed import Distributed
from pix2pix.run.run_directory import versions
from pix2pix.run.supply import cached, fetch_split

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
    store: ScoreStore | None

    def finish(self) -> None:
        """What was kept for another start goes. Call it on one rank, when all is written."""
        if self.store is not None:
            self.store.remove()

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
    out: Path | None = None,
    cache: tuple[str | None, float | None] = (None, None),
) -> Evaluated:
    """Measure a run's newest checkpoint and the baselines, and say by which conventions.

    metrics: of `feature_networks.NEEDED`, besides those that need no weights; weights: the folder
    of theirs. out: where the report will be; interrupted, a rerun goes on. cache: folder and size
    in GiB, as for a training. Raises UserError, on every rank, for a run, shards or weights that
    can't be read.
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
        said = conventions(config, networks.weights, reader.num_samples, ab)
        identity = f"{said} {reader.digest} {(checkpoint / STATE_FILE).read_text()}"
        store = ScoreStore(out, identity) if out else None
        mine = loop.score(_measure_all(paints, networks), store, title="measured")
    # One rank computes: the table is large where there are features.
    all_gather_object = distributed.all_gather_object(mine)
    scores = Scores.join(all_gather_object if distributed.is_main else [])
    report = {
        "num_samples": reader.num_samples,
        **distributed.run_on_main(lambda: _figures(scores, metrics)),
        "run_dir": str(run_dir),
        "step": step,
        "split": split,
        "shards_digest": reader.digest,
        "conventions": said,
        "versions": versions(),
    }
    return Evaluated(report, scores, reader, generator, config, store)


def _figures(scores: Scores, metrics: Sequence[str]) -> dict[str, Any]:
    """The run's figures, those of each baseline under its name, and the run's curve."""
    run = summarize(scores, RUN, metrics)
    points = curve(scores.of(CURVE))
    return {
        **run,
        **{name: summarize(scores, name, metrics) for name in BASELINES},
        CURVE: points,
        f"{CURVE}_targets": targets(points, run["colorfulness_truth"]),
    }


def _paints(
    generator: nn.Module, color_space: ColorSpace, ab: tuple[float, float]
) -> dict[str, Paint]:
    """The run's coloring and the baselines, by name; ab: the one color of `mean_color`."""
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
    return cast("FeatureNetworks", networks)


def _mean_ab(loop: EvaluationLoop) -> tuple[float, float]:
    """Mean a and b of the split's true photographs."""
    mine = loop.score(lambda gray, color: {"ab": mean_ab(color)})
    a, b = Scores.join(loop.distributed.all_gather_object(mine)).columns["ab"].mean(axis=0).tolist()
    return a, b


def _measure_all(paints: Mapping[str, Paint], networks: FeatureNetworks) -> Measure:
    """Every metric of every painting, and what the truth is like."""

    def look(rgb: Tensor) -> dict[str, Tensor]:
        columns = {HISTOGRAM: chroma_histogram(rgb_to_lab(rgb))}
        if networks.features is not None:
            columns[FEATURES] = networks.features(to_bytes(rgb))
        return columns

    def measure(gray: Tensor, color: Tensor) -> dict[str, Tensor]:
        truth = quantize(color.float() / 255)
        columns = {f"{TRUTH}/{name}": column for name, column in look(truth).items()}
        for name, paint in paints.items():
            rgb = quantize(paint(gray, color))
            values = detailed_metrics(rgb, truth) | look(rgb)
            if name == RUN:
                points = measure_curve(rgb, truth)
                columns |= {f"{CURVE}/{metric}": column for metric, column in points.items()}
            for metric, distance in networks.distances.items():
                values[metric] = distance(rgb.float(), truth.float()).double()
            columns |= {f"{name}/{metric}": value for metric, value in values.items()}
        return columns

    return measure
