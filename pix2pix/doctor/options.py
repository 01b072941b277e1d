"""Flags of `scripts/doctor.py`, and of `slurm.submit doctor` (no torch)."""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.cli.options import option
from pix2pix.doctor.findings import Patient
from pix2pix.system.urls import check_places


@dataclass(frozen=True)
class DoctorOptions:
    """What to look at beside the machine itself."""

    shards: tuple[str, ...] = option(
        (), help="folders or URLs of shards to read from", metavar="DIR|URL", many="words"
    )
    run_dir: Path | None = option(None, help="where runs shall be written", metavar="DIR")
    compile: bool = option(False, help="compile the networks of the training step: a minute more")
    json: Path | None = option(None, help="write the rows there, too", metavar="FILE")

    def __post_init__(self) -> None:
        """Check the places."""
        check_places(self.shards)

    @property
    def patient(self) -> Patient:
        """Return what the checks look at."""
        return Patient(
            shards=self.shards,
            run_dir=str(self.run_dir) if self.run_dir else None,
            compile=self.compile,
        )
