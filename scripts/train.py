"""Train a colorizer: python scripts/train.py --shards DIR --run_dir DIR [flags].

To resume, run the same command again. Exit status: 0 finished, 75 stopped and saved.
"""

from pix2pix.cli.command_line import main
from pix2pix.config import TrainConfig
from pix2pix.data import loader_server

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


def train(config: TrainConfig) -> int:
    """Train a colorizer. To resume, run the same command again."""
    if config.num_workers != 0:
        loader_server.start()  # it imports torch while this process does
    from pix2pix.run.distributed import Distributed  # heavy: only when the work starts
    from pix2pix.training.trainer import Outcome, Trainer

    with Distributed(config.collective_timeout_minutes) as distributed:
        outcome = Trainer(config, distributed).fit()
    return STOPPED if outcome is Outcome.STOPPED else 0


def command() -> None:
    """Run as `pix2pix-train` or as this file."""
    main(train, TrainConfig)


if __name__ == "__main__":
    command()
