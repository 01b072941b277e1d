"""The sharded evaluation loop: metrics over a split, exact for any number of ranks."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pix2pix.cli.progress import progress
from pix2pix.data.batches import EvaluationBatches, resize
from pix2pix.data.preflight import check_image_size
from pix2pix.data.reader import ShardReader
from pix2pix.data.stream import BatchStream
from pix2pix.errors import UserError
from pix2pix.evaluation.metrics import photo_metrics
from pix2pix.model.color import ColorSpace
from pix2pix.run.devices import exact_fp32
from pix2pix.run.distributed import Distributed

Predict = Callable[[Tensor], Tensor]
"""gray [B, 1, S, S] uint8 → its coloring, sRGB [B, 3, S, S] in [0, 1]."""

Measure = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""gray [B, 1, S, S] and color [B, 3, S, S], uint8 → columns of scores, [B, …] each."""

METRICS = ("psnr", "ssim", "chroma_error", "colorfulness", "colorfulness_truth")
"""What `evaluate` gives of each prediction."""


@dataclass(frozen=True)
class Scores:
    """What was measured of each photograph, a row each, N of them.

    Everything that a report says is computed from all rows in the order of the photographs, so it
    is the same for any number of ranks.

    positions: [N] int64, which of the split, in manifest order. columns: name → [N, …].
    """

    positions: NDArray[np.int64]
    columns: Mapping[str, NDArray]

    @classmethod
    def join(cls, tables: Iterable["Scores"]) -> "Scores":
        """Return all rows in the order of positions."""
        tables = [table for table in tables if len(table.positions)]
        if not tables:
            return cls(np.empty(0, dtype=np.int64), {})
        positions = np.concatenate([table.positions for table in tables])
        rows = np.argsort(positions)
        columns = {
            name: np.concatenate([table.columns[name] for table in tables])[rows]
            for name in tables[0].columns
        }
        return cls(positions[rows], columns)

    def of(self, prefix: str) -> dict[str, NDArray]:
        """Return the columns `prefix/NAME`, by NAME."""
        start = f"{prefix}/"
        return {
            name.removeprefix(start): column
            for name, column in self.columns.items()
            if name.startswith(start)
        }


@contextlib.contextmanager
def evaluation_mode(generator: nn.Module) -> Iterator[nn.Module]:
    """Evaluate inside: running statistics, no dropout, no gradients, fp32; then as it was."""
    training = generator.training
    generator.eval()
    try:
        with torch.inference_mode(), exact_fp32():
            yield generator
    finally:
        generator.train(training)


def colorize_batch(generator: nn.Module, color_space: ColorSpace, gray: Tensor) -> Tensor:
    """Color gray [B, 1, S, S] uint8 → sRGB [B, 3, S, S] in [0, 1]; use inside `evaluation_mode`."""
    condition = color_space.condition(gray).contiguous(memory_format=torch.channels_last)
    return color_space.to_rgb(condition, generator(condition))


def evaluate(
    predictions: Mapping[str, Predict],
    reader: ShardReader,
    image_size: int,
    distributed: Distributed,
    batch_size: int = 16,
    num_workers: int | None = None,
) -> dict[str, dict[str, float]]:
    """Return the mean of each basic metric over the split, for each prediction, on every rank.

    Every photograph is scored by itself and counted once: the center square, resized to
    image_size. Raises UserError, on every rank, where a sample can't be read on any.
    """

    def measure(gray: Tensor, color: Tensor) -> dict[str, Tensor]:
        truth = color.float() / 255
        return {
            f"{name}/{metric}": value
            for name, predict in predictions.items()
            for metric, value in photo_metrics(predict(gray), truth).items()
        }

    loop = EvaluationLoop(reader, image_size, distributed, batch_size, num_workers)
    scores = loop.score(measure)
    return distributed.run_on_main(
        lambda: {
            name: {metric: float(column.mean()) for metric, column in scores.of(name).items()}
            for name in predictions
        }
    )


@dataclass(frozen=True)
class EvaluationLoop:
    """This rank's photographs of a split, the center squares, one batch after the other."""

    reader: ShardReader
    image_size: int
    distributed: Distributed
    batch_size: int = 16
    num_workers: int | None = None

    def score(self, measure: Measure, title: str | None = None) -> Scores:
        """Return the rows of all ranks on rank 0, on the others none.

        title: of a progress bar; None draws none. Raises UserError, on every rank, where any can't
        read a sample.
        """
        for data in self.reader.data_sets:
            check_image_size(data.split, self.image_size)
        rows: list[Scores] = []
        error: UserError | None = None
        try:
            hidden = title is None or not self.distributed.is_main
            num_samples = self.reader.num_samples
            with progress("photographs", num_samples, title=title, hidden=hidden) as bar:
                for scores in self._batches(measure):
                    rows.append(scores)
                    # The others are as far as this rank, or nearly.
                    count = len(scores.positions) * self.distributed.world_size
                    bar.update(min(count, num_samples - bar.n))
        except UserError as broken:
            error = broken
        self.distributed.raise_on_all_ranks(error)
        gathered = self.distributed.all_gather_object(Scores.join(rows))
        return Scores.join(gathered if self.distributed.is_main else [])

    def _batches(self, measure: Measure) -> Iterator[Scores]:
        ranks = self.distributed
        mine = EvaluationBatches(self.reader, ranks.rank, ranks.world_size, self.batch_size)
        workers = ranks.loader_workers(self.num_workers)
        with BatchStream(mine, range(len(mine)), ranks.device, workers) as stream:
            for number, batch in enumerate(stream):
                gray, color = (resize(p, self.image_size) for p in (batch.gray, batch.color))
                columns = {name: v.cpu().numpy() for name, v in measure(gray, color).items()}
                start = number * self.batch_size
                yield Scores(mine.positions[start : start + self.batch_size], columns)
