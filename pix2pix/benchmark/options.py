"""Flags of `scripts/benchmark.py`, a class for each of its commands, and of chaos.py (no torch)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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


@dataclass(frozen=True)
class ChaosOptions:
    """Flags of scripts/chaos.py."""

    kills: int = option(20, help="how often the training is killed, 2 or more")
    seed: int = option(0, help="seed of the moments and of who is killed")
    shards: Path | None = option(
        None, help="shards to train on; none: of the packaged photographs", metavar="DIR"
    )
    json: Path | None = option(None, help="write the figures there, too", metavar="FILE")

    def __post_init__(self) -> None:
        if self.kills < 2:
            raise UserError(f"kills must be 2 or more, one for each part, not {self.kills}")


@dataclass(frozen=True)
class LoaderOptions:
    """Flags of `benchmark.py loader`."""

    photos: Path | None = option(
        None, help="folder of photographs; none: synthetic ones, as large as COCO's", metavar="DIR"
    )
    num_workers: int = option(0, help="processes; 0 is one per core", unit="processes")
    batch_size: int = option(16, help="photographs per batch", unit="samples")
    num_batches: int = option(200, help="batches of a turn", unit="batches")
    rounds: int = option(5, help="how often each side has its turn")
    json: Path | None = option(None, help="file for the figures", metavar="FILE")


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


@dataclass(frozen=True)
class StepOptions:
    """Flags of `benchmark.py step`."""

    batch_size: int = option(8, help="photographs per step", unit="samples")
    image_size: int = option(256, help="side of the pictures", unit="pixels")
    width: int = option(64, help="channels of both networks' outermost level", unit="channels")
    precision: Literal["no", "fp16", "bf16"] | None = option(
        None, help="of our step; none: as the training chooses on this device"
    )
    compile: bool = option(False, help="torch.compile the networks of our step")
    classic_batches: tuple[int, ...] | None = option(
        None, help="batch sizes of the classic step, of which the best counts; none: batch_size"
    )
    rounds: int = option(5, help="how often each side has its turn")
    seconds_per_turn: float = option(4.0, help="how long a turn lasts", unit="seconds")
    json: Path | None = option(None, help="file for the figures", metavar="FILE")
