"""Flags of `scripts/benchmark.py`, a class for each of its commands (no torch)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pix2pix.cli.options import option
from pix2pix.errors import UserError


@dataclass(frozen=True)
class Output:
    """Where a benchmark leaves its figures, beside the screen."""

    json: Path | None = option(
        None, help="file for the figures, device and versions", metavar="FILE", group="report"
    )
    plot: Path | None = option(None, help="file for a picture of them", metavar="FILE.png")

    def __post_init__(self) -> None:
        if self.plot is not None and self.plot.suffix.lower() != ".png":
            raise UserError(f"--plot {self.plot}: give a name that ends in .png")
        for name, file in (("json", self.json), ("plot", self.plot)):
            if file is not None and not file.parent.is_dir():  # known before minutes are spent
                raise UserError(f"--{name} {file}: there is no folder {file.parent}")


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

    def __post_init__(self) -> None:
        for name in ("num_processes", "repeats"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class EndToEndOptions:
    """Flags of `benchmark.py end_to_end`."""

    shards: Path | None = option(None, help="shards to train on", metavar="DIR")
    photos: Path | None = option(
        None, help="photographs to make shards of; none: synthetic ones", metavar="DIR|ZIP|TAR"
    )
    num_samples: int | None = option(
        None,
        help="length of each training: 100000 is the classic run, 4,000 photographs 25 times; "
        "none: what a turn takes",
        unit="samples",
    )
    recipe: Path | None = option(
        None, help="flags of the training, as --config of train.py", metavar="FILE"
    )
    batch_size: int | None = option(
        None, help="photographs per step; none: the recipe's, or 8 on a CPU", unit="samples"
    )
    image_size: int | None = option(
        None, help="side of the pictures; none: the recipe's, or 256", unit="pixels"
    )
    width: int | None = option(
        None,
        help="channels of both networks' outermost level; none: the recipe's, or 64",
        unit="channels",
    )
    precision: Literal["no", "fp16", "bf16"] | None = option(
        None, help="none: the recipe's, or as the training chooses on this device"
    )
    compile: bool | None = option(None, help="torch.compile; none: the recipe's, or off")
    num_workers: int | None = option(
        None, help="loaders; none: as many as the training takes", unit="processes"
    )
    rounds: int = option(7, help="how often each side has its turn")
    seconds_per_turn: float = option(3.0, help="how long a turn lasts", unit="seconds")

    def __post_init__(self) -> None:
        if self.shards is not None and self.photos is not None:
            raise UserError("--shards and --photos both say what to train on; give one of them")
        check_turns(self.rounds, self.seconds_per_turn)


@dataclass(frozen=True)
class ScalingOptions:
    """Flags of `benchmark.py scaling`."""

    processes: tuple[int, ...] | None = option(
        None, help="numbers of processes; none: 1, 2 and 4, as far as cores or GPUs go"
    )
    batch_size: int | None = option(
        None, help="photographs per step of each; none: 4, on GPUs 16", unit="samples"
    )
    image_size: int = option(256, help="side of the pictures", unit="pixels")
    width: int | None = option(
        None,
        help="channels of both networks' outermost level; none: 32, on GPUs 64",
        unit="channels",
    )
    precision: Literal["no", "fp16", "bf16"] | None = option(
        None, help="none: as the training chooses on this device"
    )
    compile: bool = option(False, help="torch.compile the networks")
    rounds: int = option(5, help="how often each side has its turn")
    seconds_per_turn: float = option(3.0, help="how long a turn lasts", unit="seconds")

    def __post_init__(self) -> None:
        if self.processes is not None and min(self.processes) < 1:
            raise UserError(f"--processes {min(self.processes)}: give 1 or more")
        check_turns(self.rounds, self.seconds_per_turn)


@dataclass(frozen=True)
class LoaderOptions:
    """Flags of `benchmark.py loader`."""

    photos: Path | None = option(
        None,
        help="folder of photographs; none, and always over HTTP: synthetic ones, as large as "
        "COCO's",
        metavar="DIR",
    )
    num_workers: int = option(0, help="processes; 0 is one per core", unit="processes")
    batch_size: int = option(16, help="photographs per batch", unit="samples")
    num_batches: int = option(200, help="batches of a turn", unit="batches")
    rounds: int = option(5, help="how often each side has its turn")
    simulate_ranks: tuple[int, ...] | None = option(
        None, help="instead: one worker of one of so many ranks, such as 1,16,256"
    )
    simulate_shards: int = option(119, help="shards of that simulation; COCO has 119")

    def __post_init__(self) -> None:
        for name in ("batch_size", "rounds", "simulate_shards"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give 1 or more")
        if self.num_batches < 2:
            raise UserError(f"--num_batches {self.num_batches}: give 2 or more")
        if self.simulate_ranks is not None and min(self.simulate_ranks, default=0) < 1:
            raise UserError("--simulate_ranks: give numbers from 1 on, such as 1,16,256")


@dataclass(frozen=True)
class PrepOptions:
    """Flags of `benchmark.py prep`."""

    photos: Path | None = option(
        None, help="folder of photographs; none: synthetic ones, as large as COCO's", metavar="DIR"
    )
    num_workers: int = option(0, help="processes; 0 is one per core", unit="processes")
    rounds: int = option(5, help="how often each side has its turn")
    seconds_per_turn: float = option(5.0, help="how long a turn lasts, roughly", unit="seconds")


@dataclass(frozen=True)
class StepOptions:
    """Flags of `benchmark.py step`."""

    batch_size: int = option(8, help="photographs per step", unit="samples")
    image_size: int = option(256, help="side of the pictures", unit="pixels")
    width: int = option(64, help="channels of both networks' outermost level", unit="channels")
    encoder: str = option(
        "none", help="backbone of timm for our generator, also beside the U-Net", metavar="NAME"
    )
    encoder_recompute: bool = option(False, help="as in a training")
    precision: Literal["no", "fp16", "bf16"] | None = option(
        None, help="of our step; none: as the training chooses on this device"
    )
    compile: bool = option(False, help="torch.compile the networks of our step")
    classic_batches: tuple[int, ...] | None = option(
        None, help="batch sizes of the classic step, of which the best counts; none: batch_size"
    )
    rounds: int = option(5, help="how often each side has its turn")
    seconds_per_turn: float = option(4.0, help="how long a turn lasts", unit="seconds")


def check_turns(rounds: int, seconds_per_turn: float) -> None:
    """Raise UserError unless there is something to measure."""
    if rounds < 1:
        raise UserError(f"--rounds {rounds}: give 1 or more")
    if seconds_per_turn <= 0:
        raise UserError(f"--seconds_per_turn {seconds_per_turn:g}: give more than 0")


@dataclass(frozen=True)
class SummaryOptions:
    """Flags of `benchmark.py summary`."""

    reports: Path = option(
        Path("out/bench"), help="folder of what --json wrote, NAME.json", metavar="DIR"
    )
