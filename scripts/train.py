"""Train a colorizer: python scripts/train.py --shards DIR --run_dir DIR [flags].

To resume, run the same command again. Exit status: 0 finished, 75 stopped and saved.
"""

import os
import sys

from pix2pix.cli.command_line import main
from pix2pix.config import TrainConfig
from pix2pix.data import loader_server
from pix2pix.data.preflight import check_early
from pix2pix.errors import UserError
from pix2pix.run import launcher
from pix2pix.system import console

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


def train(config: TrainConfig) -> int:
    """Train a colorizer, or go on with one: to resume, run the same command again."""
    console.never_fail()
    if sys.platform != "linux":
        raise UserError("training runs on Linux; elsewhere a trained model can color photographs")
    launcher.check(os.environ)
    check_early(config, launcher.world_size(os.environ))
    if config.num_workers != 0:
        loader_server.start()  # it imports torch while this process does
    from pix2pix.run.distributed import Distributed  # heavy: only when the work starts
    from pix2pix.training.trainer import Outcome, Trainer

    with Distributed(config.collective_timeout_minutes) as distributed:
        outcome = Trainer(config, distributed).fit()
    return STOPPED if outcome is Outcome.STOPPED else 0


def command() -> None:
    """`pix2pix-train`, and this file."""
    main(train, TrainConfig, defaults=lambda: launcher.defaults(os.environ))


if __name__ == "__main__":
    command()
