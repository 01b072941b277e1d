"""Flags of `scripts/gpu.py` (no torch)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pix2pix.cli.options import option
from pix2pix.errors import UserError

Part = Literal[
    "tests",
    "step",
    "compile",
    "classic_step",
    "loader",
    "checkpoint",
    "end_to_end",
    "classic",
    "autotune",
]


@dataclass(frozen=True)
class GpuOptions:
    """What to prove and measure, and where the report is written."""

    part: Part | None = option(
        None,
        help=f"one section of the report: {', '.join(get_args(Part))}; none: all but the last, "
        "nine minutes",
        metavar="SECTION",
    )
    photos: Path | None = option(
        None, help="photographs of the classic run; none: synthetic ones", metavar="DIR|ZIP|TAR"
    )
    out: Path = option(Path("out/gpu"), help="folder of report.md and the logs", metavar="DIR")

    def __post_init__(self) -> None:
        if self.photos is not None and not self.photos.exists():
            raise UserError(f"--photos {self.photos}: there is nothing of that name")
