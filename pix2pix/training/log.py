"""The log of a run, on one rank: TensorBoard, metrics.jsonl, a progress bar, sample pictures."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.io import encode_png
from torchvision.utils import make_grid
from tqdm import tqdm

from pix2pix.config import TrainConfig
from pix2pix.run.run_directory import RunDirectory
from pix2pix.system.durable import publish
from pix2pix.training.board import describe_run
from pix2pix.training.courtesy import Board, Courtesy, LineFile

BAR_COLUMNS = 80
QUIET_INTERVAL_SECONDS = 30  # between bar lines where nobody watches a terminal


class RunLog:
    """Writes the records of a run; `active` on one rank only, elsewhere it does nothing.

    config: resolved. machine: what it runs on, for people, such as {"device": "cpu"}.
    first_step: the step that the training goes on from; what an earlier start logged after it is
        dropped, because those steps are repeated.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        machine: Mapping[str, str],
        first_step: int,
        active: bool,
    ) -> None:
        self.run = run
        self.active = active
        self.courtesy = Courtesy()
        if not active:
            return
        with self.courtesy.of("metrics.jsonl"):
            _drop_records_after(run.metrics_file, first_step)
        self._records = LineFile(run.metrics_file, self.courtesy)
        self._board = Board(run.tensorboard, first_step + 1, self.courtesy)
        self._board.write(lambda board: describe_run(board, config, machine, first_step))
        watched = sys.stderr.isatty()
        self._bar = tqdm(
            total=config.total_steps,
            initial=first_step,
            unit="step",
            ncols=BAR_COLUMNS,
            mininterval=0.1 if watched else QUIET_INTERVAL_SECONDS,
            maxinterval=10 if watched else QUIET_INTERVAL_SECONDS,
        )

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self.active:
            self._bar.close()
            self._records.write_pending()
            self._board.close()

    def advance(self) -> None:
        """Count a step."""
        if self.active:
            self._bar.update()

    def line(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self.active:
            self._bar.write(text)

    def scalars(self, step: int, values: Mapping[str, float], at: float | None = None) -> None:
        """Log values under their names, "group/name"; at: their time (Unix), None: now."""
        if not self.active:
            return

        def add(board: SummaryWriter) -> None:
            for name, value in values.items():
                board.add_scalar(name, value, step, walltime=at)

        self._board.write(add)
        self.record(step, values, at)

    def record(self, step: int, values: Mapping[str, Any], at: float | None = None) -> None:
        """Write a line into metrics.jsonl alone: for what is no curve."""
        if not self.active:
            return
        line = json.dumps({"step": step, "time": round(at or time.time(), 3), **values})
        self._records.write(line)

    def postfix(self, text: str) -> None:
        """Show a few numbers at the end of the progress bar."""
        if self.active:
            self._bar.set_postfix_str(text, refresh=False)

    def picture(self, step: int, rows: Tensor) -> None:
        """Save rows of pictures, [rows, columns, 3, H, W] in [0, 1], as one sheet."""
        if not self.active:
            return
        sheet = make_grid(rows.flatten(end_dim=1).cpu().float(), nrow=rows.shape[1], padding=2)
        pixels = (sheet * 255).round().clamp(0, 255).to(torch.uint8)
        png = encode_png(pixels).numpy().tobytes()
        with self.courtesy.of("sample pictures"):
            self.run.samples.mkdir(exist_ok=True)
            publish(self.run.samples / f"step_{step:09d}.png", png)
        tag = "samples/gray, colorized, truth"
        self._board.write(lambda board: board.add_image(tag, pixels, step))


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak of memory so far: the GPU's, or this process's where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource  # Windows has none

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**30 if sys.platform == "darwin" else 2**20)


def _drop_records_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a killed run may leave half a line
        if record["step"] <= step:
            kept.append(line + "\n")
    publish(path, "".join(kept).encode())
