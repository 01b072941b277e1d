"""Weights read from a run's checkpoint: to evaluate, color, export, or start a new training."""

from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader

from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run import checkpoint_files as files
from pix2pix.run.checkpoint import reason_of
from pix2pix.run.distributed import Distributed
from pix2pix.run.run_directory import RunDirectory
from pix2pix.run.state import EMA_NAME, TrainState, build_generator

NETWORK_FIELDS = (
    *("color_space", "image_size", "norm", "generator_width", "discriminator_width"),
    *("encoder", "encoder_scale"),
)


def newest_checkpoint(run_dir: Path) -> Path:
    """Return the newest good checkpoint of a run, after reading all of it.

    Print each newer checkpoint that is not good, with the reason.

    Raises:
        UserError: there is no good checkpoint.
    """
    run = RunDirectory(run_dir)
    config_hash = run.config_hash()
    found = files.checkpoints(run.checkpoints)
    for path in found:
        fault = files.verify(path, config_hash)
        if fault is None:
            return path
        print(f"ignoring {path.name}: {fault}")
    if found:
        raise files.none_is_good(run.checkpoints)
    raise UserError(f"{run_dir} has no checkpoint yet; train it first, or train longer")


def load_generator(run_dir: Path, path: Path) -> tuple[nn.Module, TrainConfig, int]:
    """Return the generator of a run's checkpoint `path` on the CPU, its configuration and step.

    It has the averaged weights if the run has them.
    """
    config = RunDirectory(run_dir).read_config()
    generator = build_generator(config)
    name = EMA_NAME if config.ema_decay > 0 else "generator"
    _read_into({name: generator.state_dict()}, path)
    return generator.eval(), config, files.read_facts(path)["step"]


def restore_networks(
    run_dir: Path, config: TrainConfig, state: TrainState, distributed: Distributed
) -> Path:
    """Load the networks' weights of another run into `state`, to start a new training.

    Returns:
        The checkpoint that was read.

    Raises:
        UserError: the networks differ.
    """
    theirs = RunDirectory(run_dir).read_config()
    path = distributed.run_on_main(partial(newest_checkpoint, run_dir))
    for name in NETWORK_FIELDS:
        if getattr(theirs, name) != getattr(config, name):
            raise UserError(
                f"init_from {run_dir} has {name} {getattr(theirs, name)!r}, this training "
                f"{getattr(config, name)!r}; give the same value"
            )
    values = {name: network.state_dict() for name, network in state.networks().items()}
    average = values.pop(EMA_NAME, None)
    if average is not None and theirs.ema_decay > 0:
        values[EMA_NAME] = average
    _read_into(values, path)
    if average is not None and theirs.ema_decay == 0:
        for mine, read in zip(average.values(), values["generator"].values(), strict=True):
            mine.copy_(read)
    return path


def _read_into(values: dict[str, Any], path: Path) -> None:
    """Fill the tensors of `values` in place, in this process only."""
    try:
        dcp.load(values, storage_reader=FileSystemReader(path), no_dist=True)
    except CheckpointException as failure:
        raise UserError(f"can't read {path}: {reason_of(failure)}") from failure
