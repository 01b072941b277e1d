"""The weights that a training starts from: its checkpoint, another run, an export, or the hub."""

from functools import partial
from pathlib import Path

import torch

from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.model.generators import NO_ENCODER
from pix2pix.run.checkpoint import Checkpointer
from pix2pix.run.distributed import Distributed
from pix2pix.run.state import TrainState
from pix2pix.training.pretrained import check_encoder, start_encoder

# Settings of an exported generator → fields of TrainConfig.
SETTINGS = {"color_space": "color_space", "image_size": "image_size", "width": "generator_width"}


def restore_or_start(
    config: TrainConfig, state: TrainState, checkpointer: Checkpointer, distributed: Distributed
) -> None:
    """Load the newest good checkpoint into `state`, or in a new run what --init_from names."""
    run_dir = checkpointer.root.parent
    newest = checkpointer.restore(state)
    if newest is not None:
        check_encoder(config, run_dir, distributed)
        distributed.say(f"going on from step {state.step} ({newest})")
    elif config.init_from is not None:
        distributed.advise(start_from(config.init_from, config, state, distributed))
    elif config.encoder != NO_ENCODER:
        distributed.advise(start_encoder(config, state, run_dir, distributed))


def start_from(
    source: Path, config: TrainConfig, state: TrainState, distributed: Distributed
) -> str:
    """Load the weights at `source` into `state`, on every rank; returns a line that says which.

    A run (its newest checkpoint): all networks. An export, or "owner/name" on the hub: the
    generator, from which its average starts; the discriminator is fresh, because none is exported.
    Raises UserError where the networks differ.
    """
    if distributed.run_on_main(lambda: (source / "config.json").exists() and _is_run(source)):
        from pix2pix.run.weights import restore_networks  # only another run's weights need it

        read = restore_networks(source, config, state, distributed)
        return f"starting from the weights of {read}"
    distributed.run_on_main(partial(_load_export, source, config, state))
    networks = [state.generator, *filter(None, [state.ema_generator])]
    for network in networks:
        distributed.broadcast(network.parameters())
    distributed.broadcast_buffers(*networks)
    average = ", its average from the same" if state.ema_generator is not None else ""
    return f"starting from the generator of {source}{average}; the discriminator is fresh"


def _is_run(source: Path) -> bool:
    return not (source / "model.safetensors").exists()


def _load_export(source: Path, config: TrainConfig, state: TrainState) -> None:
    from pix2pix.export.generator import Generator  # with the hub's client: 0.1 s

    generator = Generator.from_pretrained(source)
    theirs = {SETTINGS.get(name, name): value for name, value in generator.config.items()}
    theirs.pop("dropout")  # has no weights
    theirs = {"encoder": NO_ENCODER, "encoder_scale": 1} | theirs
    for name, value in theirs.items():
        mine = getattr(config, name)
        if name == "norm" and mine == "sync_batch":
            mine = "batch"  # the same layer, with the same weights
        if mine != value:
            raise UserError(
                f"init_from {source} has {name} {value!r}, this training {mine!r}; networks must "
                "be alike"
            )
    with torch.no_grad():
        for network in filter(None, [state.generator, state.ema_generator]):
            network.load_state_dict(generator.state_dict())
