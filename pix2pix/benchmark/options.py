"""Flags of `scripts/benchmark.py`, a class for each of its commands (no torch)."""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.options import option


@dataclass(frozen=True)
class PrepOptions:
    """Flags of `benchmark.py prep`."""

    photos: Path | None = option(
        None, help="folder of photographs; none: synthetic ones, as large as COCO's", metavar="DIR"
    )
    num_workers: int = option(0, help="processes; 0 is one per core", unit="processes")
    img2dataset: Path | None = option(
        None, help="a Python with img2dataset, to measure it beside ours", metavar="PYTHON"
    )
    rounds: int = option(5, help="how often each side has its turn")
    seconds_per_turn: float = option(5.0, help="how long a turn lasts, roughly", unit="seconds")
    json: Path | None = option(None, help="file for the figures", metavar="FILE")
