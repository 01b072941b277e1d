"""What a training looks at: sample pictures of fixed photographs, and the means over val."""

from functools import partial

import torch
from torch import Tensor

from pix2pix.config import TrainConfig
from pix2pix.data.batches import EvaluationBatches, resize
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.evaluation.evaluation import colorize_batch, evaluate, evaluation_mode
from pix2pix.model.color import ColorSpace
from pix2pix.run.distributed import Distributed
from pix2pix.run.state import TrainState

NUM_SAMPLE_PICTURES = 8


def sample_sheet(
    reader: ShardReader, config: TrainConfig, state: TrainState, device: torch.device
) -> Tensor:
    """Rows of pictures, [rows, 3, 3, S, S] in [0, 1]; no collective inside.

    Raises UserError where the photographs can't be read.
    """
    batch = EvaluationBatches(reader, 0, 1, NUM_SAMPLE_PICTURES)[0].to(device)
    if batch.broken:
        raise UserError(batch.broken)
    gray, color = (resize(pixels, config.image_size) for pixels in (batch.gray, batch.color))
    with evaluation_mode(state.eval_generator) as generator:
        rgb = colorize_batch(generator, ColorSpace(config.color_space), gray)
    columns = [gray.expand(-1, 3, -1, -1).float() / 255, rgb, color.float() / 255]
    return torch.stack(columns, dim=1)


def validation_means(
    reader: ShardReader, config: TrainConfig, state: TrainState, distributed: Distributed
) -> dict[str, float]:
    """Mean of each basic metric over the split, on every rank.

    Raises UserError or StorageError, on every rank, where one can't read its photographs.
    """
    distributed.broadcast_buffers(state.eval_generator)
    with evaluation_mode(state.eval_generator) as generator:
        predict = partial(colorize_batch, generator, ColorSpace(config.color_space))
        means = evaluate(
            {"colorized": predict},
            reader,
            config.image_size,
            distributed,
            num_workers=config.num_workers,
        )
    return means["colorized"]
