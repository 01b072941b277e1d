"""Flags of `python -m tests.chaos` (no torch)."""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.cli.options import option
from pix2pix.errors import UserError


@dataclass(frozen=True)
class ChaosOptions:
    """Flags of `python -m tests.chaos`."""

    kills: int = option(20, help="how often the training is killed, 2 or more")
    seed: int = option(0, help="seed of the moments and of who is killed")
    shards: Path | None = option(
        None, help="shards to train on; none: of the packaged photographs", metavar="DIR"
    )
    json: Path | None = option(None, help="write the figures there, too", metavar="FILE")

    def __post_init__(self) -> None:
        if self.kills < 2:
            raise UserError(f"kills must be 2 or more, one for each part, not {self.kills}")
