"""The sharded evaluation loop: metrics over a split, exact for any number of ranks."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pix2pix.data.batches import EvaluationBatches, resize
from pix2pix.data.preflight import check_image_size
from pix2pix.data.reader import ShardReader
from pix2pix.data.stream import BatchStream
from pix2pix.errors import UserError
from pix2pix.evaluation.metrics import photo_metrics
from pix2pix.evaluation.scores import Scores, ScoreStore
from pix2pix.model.color import ColorSpace
from pix2pix.run.distributed import Distributed

Predict = Callable[[Tensor], Tensor]
"""gray [B, 1, S, S] uint8 → its coloring, sRGB [B, 3, S, S] in [0, 1]."""

Measure = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""gray [B, 1, S, S] and color [B, 3, S, S], uint8 → columns of scores, [B, …] each."""

METRICS = ("psnr", "ssim", "chroma_error", "colorfulness", "colorfulness_truth")
"""What `evaluate` gives of each prediction."""

QUIET_INTERVAL_SECONDS = 30  # between bar lines where nobody watches a terminal


@contextlib.contextmanager
def evaluation_mode(generator: nn.Module) -> Iterator[nn.Module]:
    """Running statistics, no dropout and no gradients inside; then the mode it had."""
    training = generator.training
    generator.eval()
    try:
        with torch.inference_mode():
            yield generator
    finally:
        generator.train(training)


def colorize_batch(generator: nn.Module, color_space: ColorSpace, gray: Tensor) -> Tensor:
    """gray [B, 1, S, S] uint8 → sRGB [B, 3, S, S] in [0, 1]; use inside `evaluation_mode`."""
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
    """Mean of each basic metric over the whole split, for each prediction, on every rank.

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
    scores = Scores.join(distributed.all_gather_object(loop.score(measure)))
    return {
        name: {metric: float(column.mean()) for metric, column in scores.of(name).items()}
        for name in predictions
    }


@dataclass(frozen=True)
class EvaluationLoop:
    """This rank's photographs of a split, the center squares, one batch after the other."""

    reader: ShardReader
    image_size: int
    distributed: Distributed
    batch_size: int = 16
    num_workers: int | None = None

    def score(
        self, measure: Measure, store: ScoreStore | None = None, title: str | None = None
    ) -> Scores:
        """The rows of this rank. Raises UserError, on every rank, where any can't read a sample.

        store: holds rows of an earlier start, which are not computed again; they are among those
            of rank 0. title: of a progress bar; None draws none.
        """
        for data in self.reader.data_sets:
            check_image_size(data.split, self.image_size)
        rows: list[Scores] = []

        def load() -> NDArray[np.int64]:
            rows.append(store.load() if store else Scores.join([]))
            return rows[0].positions

        done = self.distributed.run_on_main(load)
        mine = self._share(done)
        error = None
        try:
            with self._progress(title, len(done)) as bar, store or contextlib.nullcontext():
                for scores in self._batches(mine, measure):
                    rows.append(scores)
                    if store:
                        store.add(scores)
                    # The others are as far as this rank, or nearly.
                    count = len(scores.positions) * self.distributed.world_size
                    bar.update(min(count, bar.total - bar.n))
        except UserError as broken:
            error = str(broken)
        self.distributed.raise_on_all_ranks(error)
        return Scores.join(rows)

    def _share(self, done: NDArray[np.int64]) -> EvaluationBatches:
        """What is left, shared among the ranks."""
        distributed, num_samples = self.distributed, self.reader.num_samples
        if len(done):
            distributed.say(f"going on after {len(done)} of {num_samples} photographs")
        left = np.setdiff1d(np.arange(num_samples), done)
        rank, world_size = distributed.rank, distributed.world_size
        return EvaluationBatches(self.reader, rank, world_size, self.batch_size, left)

    def _progress(self, title: str | None, num_done: int) -> tqdm:
        watched = sys.stderr.isatty()
        interval = 0.1 if watched else QUIET_INTERVAL_SECONDS
        return tqdm(
            desc=title,
            initial=num_done,
            total=self.reader.num_samples,
            unit="photo",
            ncols=80,
            leave=False,
            mininterval=interval,
            maxinterval=max(10, interval),
            delay=0 if watched else interval,
            disable=title is None or not self.distributed.is_main,
        )

    def _batches(self, mine: EvaluationBatches, measure: Measure) -> Iterator[Scores]:
        workers = self.distributed.loader_workers(self.num_workers)
        numbers = range(len(mine))
        with BatchStream(mine, numbers, self.distributed.device, workers) as stream:
            for number, batch in enumerate(stream):
                gray, color = (resize(p, self.image_size) for p in (batch.gray, batch.color))
                columns = {name: v.cpu().numpy() for name, v in measure(gray, color).items()}
                start = number * self.batch_size
                yield Scores(mine.positions[start : start + self.batch_size], columns)
