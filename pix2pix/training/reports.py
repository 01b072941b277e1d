"""What a training reports: scalars, failed steps, sample pictures, evaluations on val."""

import time
from collections import deque
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from pix2pix.cli.help import wrap
from pix2pix.config import TrainConfig
from pix2pix.data.batches import EvaluationBatches, global_batch_keys, resize
from pix2pix.data.reader import ShardReader
from pix2pix.data.stream import BatchStream
from pix2pix.errors import UserError
from pix2pix.evaluation.baselines import leave_gray
from pix2pix.evaluation.evaluation import Predict, colorize_batch, evaluate, evaluation_mode
from pix2pix.model.color import ColorSpace
from pix2pix.run.distributed import Distributed
from pix2pix.run.state import TrainState
from pix2pix.training.advice import SlowSteps
from pix2pix.training.log import RunLog, peak_memory_gib
from pix2pix.training.watch import Closed, FailedStep, MeanWindow

NUM_SAMPLE_PICTURES = 8


class Reports:
    """Measures a training and writes what it finds into its log; every rank has one.

    Attributes:
        window: means of the steps since the last scalars.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainState,
        distributed: Distributed,
        train: ShardReader,
        validation: ShardReader | None,
        stream: BatchStream,
        log: RunLog,
    ) -> None:
        self.config = config
        self.state = state
        self.distributed = distributed
        self.train = train
        self.validation = validation
        self.log = log
        self.window = MeanWindow(stream)
        self._under_way: deque[tuple[int, float, Closed, dict[str, float]]] = deque()
        self._last = config.total_steps or 0
        steps_left = self._last - state.step
        self._slow_steps = SlowSteps(config, distributed.device.type == "cpu", steps_left)

    def step_done(self) -> None:
        """Advance the progress bar; on a CPU, say once how long the run takes."""
        self.log.advance()
        self.distributed.advise(self._slow_steps.step_done())

    def failed_step(self, failed: FailedStep) -> None:
        """Name a step that was not finite, with its samples."""
        if self.distributed.is_main:
            keys = global_batch_keys(self.train, self.config, failed.number - 1)
            self.log.record(failed.number, {"skipped": failed.networks, "samples": keys})
            self.log.line(wrap(failed.described(keys)))

    def scalars(self, fetched: Mapping[str, float]) -> None:
        """Close the window of the means on all ranks; `write_scalars` logs them with `fetched`."""
        step, config = self.state.step, self.config
        known = {
            "optimizer/learning_rate": config.learning_rate_at(step - 1),
            **fetched,
            "memory/peak_gib": peak_memory_gib(self.distributed.device),
        }
        closed = self.window.close(self.distributed)
        known["speed/samples_per_second"] = closed.steps_per_second * config.global_batch
        self._under_way.append((step, time.time(), closed, known))
        self.write_scalars()

    def write_scalars(self, wait: bool = False) -> None:
        """Log the means that have arrived from the device, each at the step that it belongs to.

        wait: whether to wait for all of them.
        """
        while self._under_way and (wait or self._under_way[0][2].values.are_here):
            step, at, closed, known = self._under_way.popleft()
            values = closed.means() | known
            with self.window.timed("logging"):
                self.log.scalars(step, values, at)
            tags = ("loss/generator_l1", "discriminator/real", "discriminator/fake")
            l1, real, fake = (values[tag] for tag in tags)
            waited = values["speed/share_waited_for_data"]
            self.log.postfix(f"L1 {l1:.3f}, D {real:.2f}/{fake:.2f}, data {waited:.0%}")

    def sample_pictures(self) -> None:
        """Draw fixed photographs, gray | colorized | truth; rank 0 alone, no collective inside."""
        if not self.distributed.is_main:
            return
        reader, device = self.validation or self.train, self.distributed.device
        try:
            sheet = sample_sheet(reader, self.config, self.state, device)
        except UserError as error:  # pictures are a courtesy; if need be, the training says it too
            self.log.line(wrap(f"no sample pictures at step {self.state.step}: {error}"))
        else:
            self.log.picture(self.state.step, sheet)

    def evaluation(self, validation: ShardReader) -> None:
        """Measure the generator on `validation`; every rank takes part.

        Raises UserError or StorageError, on every rank, where one can't read its photographs.
        """
        step, config = self.state.step, self.config
        # The baseline is the same every time: measured by the first evaluation, and by the last.
        baselines = {"gray": leave_gray} if step in (config.evaluate_every, self._last) else {}
        means = validation_means(validation, config, self.state, self.distributed, baselines)
        values = means.pop("colorized")
        tagged = {f"evaluation/{metric}": value for metric, value in values.items()}
        for name, figures in means.items():
            tagged |= {f"baseline_{name}/{metric}": value for metric, value in figures.items()}
        self.log.scalars(step, tagged)
        gray = f" (gray {means['gray']['psnr']:.2f})" if means else ""
        self.log.line(
            f"step {step}: PSNR {values['psnr']:.2f} dB{gray}, colorfulness "
            f"{values['colorfulness']:.1f} (truth {values['colorfulness_truth']:.1f})"
        )


def sample_sheet(
    reader: ShardReader, config: TrainConfig, state: TrainState, device: torch.device
) -> Tensor:
    """Return rows of pictures, [rows, 3, 3, S, S] in [0, 1]; no collective inside.

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
    reader: ShardReader,
    config: TrainConfig,
    state: TrainState,
    distributed: Distributed,
    baselines: Mapping[str, Predict],
) -> dict[str, dict[str, float]]:
    """Return the mean of each basic metric over the split, on every rank.

    Of "colorized", what the generator makes, and of the `baselines` by their names.
    """
    distributed.broadcast_buffers(state.eval_generator)
    with evaluation_mode(state.eval_generator) as generator:
        predict = partial(colorize_batch, generator, ColorSpace(config.color_space))
        return evaluate(
            {"colorized": predict, **baselines},
            reader,
            config.image_size,
            distributed,
            num_workers=config.num_workers,
        )
