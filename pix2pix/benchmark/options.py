"""Flags of `scripts/benchmark.py`, a dataclass for each thing that it measures (no torch)."""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.errors import UserError
from pix2pix.options import option


@dataclass(frozen=True)
class CheckpointOptions:
    """The flags of `scripts/benchmark.py checkpoint`."""

    run_dir: Path | None = option(
        None,
        help="scratch folder, on the disk to measure; none: the system's temporary one",
        metavar="DIR",
    )
    num_processes: int = option(1, help="how many processes save and resume together")
    repeats: int = option(3, help="how often each thing is measured; the median counts")
    image_size: int = option(256, help="side of the square", unit="pixels")
    generator_width: int = option(64, help="channels of its outermost level", unit="channels")
    discriminator_width: int = option(64, help="channels of its first layer", unit="channels")
    json: Path | None = option(None, help="write the figures there", metavar="FILE")

    def __post_init__(self) -> None:
        for name in ("num_processes", "repeats"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
