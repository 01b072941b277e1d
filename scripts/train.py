"""Train a colorizer: python scripts/train.py --shards DIR --run_dir DIR [flags].

To resume, run the same command again. Exit status: 0 finished, 75 stopped and saved.
With --dry_run it says what the training costs, and trains nothing.
"""

import os
import sys

from pix2pix.cli.command_line import main
from pix2pix.cli.ending import is_first_rank
from pix2pix.config import TrainConfig
from pix2pix.data import loader_server
from pix2pix.data.data_set import digest_of, epoch_samples, open_training
from pix2pix.data.preflight import check_early, check_training
from pix2pix.errors import UserError
from pix2pix.run import launcher
from pix2pix.run.run_directory import RunDirectory
from pix2pix.system import console
from pix2pix.training.plan import DryRunOptions, cost_table

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again


def train(config: TrainConfig, dry: DryRunOptions) -> int:
    """Train a colorizer, or go on with one: to resume, run the same command again."""
    console.never_fail()
    if sys.platform != "linux":
        raise UserError("training runs on Linux; elsewhere a trained model can color photographs")
    launcher.check(os.environ)
    world_size = launcher.world_size(os.environ)
    check_early(config, world_size)
    if dry.dry_run:
        return _say_cost(config, world_size, dry.estimate) if is_first_rank() else 0
    if config.num_workers != 0:
        loader_server.start()  # it imports torch while this process does
    from pix2pix.run.distributed import Distributed  # heavy: only when the work starts
    from pix2pix.training.trainer import Outcome, Trainer

    with Distributed(config.collective_timeout_minutes) as distributed:
        outcome = Trainer(config, distributed).fit()
    return STOPPED if outcome is Outcome.STOPPED else 0


def _say_cost(config: TrainConfig, world_size: int, measure: bool) -> int:
    """Print what the training costs, and what would stop it."""
    train, _ = open_training(config)
    config = check_training(config, train, world_size, on_cpu=False)
    for change in RunDirectory(config.run_dir).check(config, digest_of(train)):
        print(f"changed since the last start: {change}")
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE") or world_size)
    print(cost_table(config, epoch_samples(train), world_size, ranks_here, measure))
    return 0


def command() -> None:
    """`pix2pix-train`, and this file."""
    main(train, (TrainConfig, DryRunOptions), defaults=lambda: launcher.defaults(os.environ))


if __name__ == "__main__":
    command()
