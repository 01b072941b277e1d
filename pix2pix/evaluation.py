"""The sharded evaluation loop: metrics over a split, exact for any number of ranks."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pix2pix.checkpoint import load_generator, newest_checkpoint
from pix2pix.color import ColorSpace
from pix2pix.data import BatchStream, EvaluationBatches, resize
from pix2pix.distributed import Distributed
from pix2pix.durable import publish_json
from pix2pix.errors import UserError
from pix2pix.metrics import photo_metrics
from pix2pix.preflight import check_image_size
from pix2pix.reader import ShardReader
from pix2pix.shards import open_split

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
    num_workers: int | None = None,
) -> dict[str, dict[str, float]]:
    """Mean of each metric over the whole split, for each prediction, on every rank.

    Every photograph is scored by itself and counted once: the centre square, resized to
    image_size. Raises UserError, on every rank, where a sample can't be read on any.
    """
    check_image_size(reader.split, image_size)
    mine = EvaluationBatches(reader, distributed.rank, distributed.world_size, batch_size)
    numbers, workers = range(len(mine)), distributed.loader_workers(num_workers)
    sums: dict[str, dict[str, Tensor]] = {}
    error = None
    with BatchStream(mine, numbers, distributed.device, workers) as stream:
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


def evaluate_run(
    run_dir: Path,
    shards: Path,
    split: str,
    distributed: Distributed,
    batch_size: int = 16,
    num_workers: int | None = None,
) -> dict[str, Any]:
    """The report on a run's newest checkpoint: its metrics, those of the gray baseline, and how.

    Raises UserError, on every rank, for a run or shards that can't be read.
    """
    reader = ShardReader(shards, distributed.on_main(lambda: open_split(shards, split)))
    generator, config, step = load_generator(
        run_dir, distributed.on_main(lambda: newest_checkpoint(run_dir))
    )
    generator.to(distributed.device)
    color_space = ColorSpace(config.color_space)
    with evaluation_mode(generator):
        means = evaluate(
            {"colorized": partial(colorize_batch, generator, color_space), "gray": leave_gray},
            reader,
            config.image_size,
            distributed,
            batch_size,
            num_workers,
        )
    return {
        "num_samples": reader.split.num_samples,
        **means["colorized"],
        "gray": means["gray"],
        "run_dir": str(run_dir),
        "step": step,
        "split": split,
        "shards_digest": reader.split.digest,
        "conventions": {
            "image": f"centre square of the stored photograph, bilinear with antialiasing to "
            f"{config.image_size} px, values rounded to 8 bits",
            "mean": "over photographs",
            "psnr": "dB over R, G and B, at most 100",
            "ssim": "Gaussian window 11, sigma 1.5, mean of R, G and B, no border",
            "chroma_error": "mean distance in the ab plane of CIE Lab, D65",
            "colorfulness": "Hasler and Suesstrunk 2003, on values of 0 to 255",
            "weights": "moving average" if config.ema_decay > 0 else "last step",
            "norm": "running statistics" if config.norm != "instance" else "of the photograph",
            "dropout": "off",
        },
    }


def report_table(report: Mapping[str, Any]) -> str:
    """The report for people: a line for each metric, the coloured photographs beside the gray."""
    truth = report["colorfulness_truth"]
    rows = [f"{'':14}{'colorized':>12}{'gray':>12}"]
    for metric, unit in UNITS.items():
        rows.append(f"{metric:14}{report[metric]:12.3f}{report['gray'][metric]:12.3f}  {unit}")
    count = f"{report['num_samples']} photographs of {report['split']}, step {report['step']}"
    return "\n".join([count, *rows, f"colorfulness of the true photographs: {truth:.3f}"])


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report as JSON. Raises UserError where it can't."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_json(path, report)
    except OSError as error:
        raise UserError(f"can't write the report {path}: {error.strerror}") from error


UNITS = {"psnr": "dB", "ssim": "", "chroma_error": "in ab", "colorfulness": ""}
METRICS = ("psnr", "ssim", "chroma_error", "colorfulness", "colorfulness_truth")


def _means(
    sums: dict[str, dict[str, Tensor]], names: list[str], count: int, distributed: Distributed
) -> dict[str, dict[str, float]]:
    # A rank without a sample has no sums, but takes part in the reduction.
    zero = torch.zeros((), dtype=torch.float64, device=distributed.device)
    flat = [sums.get(name, {}).get(metric, zero) for name in names for metric in METRICS]
    means = iter((distributed.sum(torch.stack(flat)) / count).tolist())
    return {name: {metric: next(means) for metric in METRICS} for name in names}
