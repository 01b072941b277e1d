"""The sharded evaluation loop: metrics over a split, exact for any number of ranks."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from pix2pix.color import ColorSpace
from pix2pix.data import BatchStream, EvaluationBatches, check_image_size, resize
from pix2pix.distributed import Distributed
from pix2pix.errors import UserError
from pix2pix.metrics import photo_metrics
from pix2pix.reader import ShardReader

Predict = Callable[[Tensor], Tensor]
"""gray [B, 1, S, S] uint8 → its colouring, sRGB [B, 3, S, S] in [0, 1]."""


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


def leave_gray(gray: Tensor) -> Tensor:
    """The baseline that a colorizer must beat: the photograph as it is."""
    return (gray.float() / 255).expand(-1, 3, -1, -1)


def evaluate(
    predictions: Mapping[str, Predict],
    reader: ShardReader,
    image_size: int,
    distributed: Distributed,
    batch_size: int = 16,
    num_workers: int = 2,
) -> dict[str, dict[str, float]]:
    """Mean of each metric over the whole split, for each prediction, on every rank.

    Every photograph is scored by itself and counted once: the centre square, resized to
    image_size. Raises UserError, on every rank, where a sample can't be read on any.
    """
    check_image_size(reader.split, image_size)
    mine = EvaluationBatches(reader, distributed.rank, distributed.world_size, batch_size)
    numbers = range(len(mine))
    sums: dict[str, dict[str, Tensor]] = {}
    error = None
    with BatchStream(mine, numbers, distributed.device, num_workers) as stream:
        try:
            for batch in stream:
                gray, color = resize(batch.gray, image_size), resize(batch.color, image_size)
                for name, predict in predictions.items():
                    values = photo_metrics(predict(gray), color.float() / 255)
                    total = sums.setdefault(name, {})
                    for metric, value in values.items():
                        total[metric] = total.get(metric, torch.zeros_like(value[0])) + value.sum()
        except UserError as broken:
            error = str(broken)
    distributed.raise_together(error)
    return _means(sums, list(predictions), reader.split.num_samples, distributed)


METRICS = ("psnr", "ssim", "chroma_error", "colorfulness", "colorfulness_truth")


def _means(
    sums: dict[str, dict[str, Tensor]], names: list[str], count: int, distributed: Distributed
) -> dict[str, dict[str, float]]:
    # A rank without a sample has no sums, but takes part in the reduction.
    zero = torch.zeros((), dtype=torch.float64, device=distributed.device)
    flat = [sums.get(name, {}).get(metric, zero) for name in names for metric in METRICS]
    means = iter((distributed.sum(torch.stack(flat)) / count).tolist())
    return {name: {metric: next(means) for metric in METRICS} for name in names}
