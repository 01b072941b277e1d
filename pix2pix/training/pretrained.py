"""A pretrained encoder: its weights come in before step 0, and the run remembers which."""

from functools import partial
from pathlib import Path

from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.model.generators import NO_ENCODER
from pix2pix.run.distributed import Distributed
from pix2pix.run.run_directory import RunDirectory
from pix2pix.run.state import TrainState
from pix2pix.system.durable import publish_json


def start_encoder(
    config: TrainConfig, state: TrainState, run_dir: Path, distributed: Distributed
) -> str:
    """Give a new training's encoder its weights, on every rank; returns a line that says which.

    Raises UserError where there are none, or those of another network.
    """
    from pix2pix.model.encoder_weights import find_weights  # imports timm: two seconds

    find = partial(find_weights, config.encoder, config.encoder_weights)
    distributed.run_on_main(lambda: find() and None)  # alone at first: it may download
    weights = find()
    if weights is None:
        return f"encoder {config.encoder} starts from random weights"
    for generator in (state.generator, state.ema_generator):
        if generator is not None:
            weights.load_into(generator)
    facts = {
        "encoder": config.encoder,
        "source": weights.source,
        "origin": weights.origin,
        "sha256": weights.sha256,
        "license": weights.license,
    }
    distributed.run_on_main(partial(publish_json, RunDirectory(run_dir).encoder_file, facts))
    return f"encoder {config.encoder} starts from the weights of {weights.source}"


def check_encoder(config: TrainConfig, run_dir: Path, distributed: Distributed) -> None:
    """Raise UserError, on every rank, where a run goes on with other weights than it began with.

    Its checkpoint holds them, so a source that is not here any more is no obstacle. The hub is not
    asked.
    """
    if config.encoder != NO_ENCODER:
        distributed.run_on_main(partial(_compare, config, run_dir))


def _compare(config: TrainConfig, run_dir: Path) -> None:
    from pix2pix.model.encoder_weights import find_weights, is_here

    began_with = RunDirectory(run_dir).encoder_facts().get("sha256")
    source = config.encoder_weights
    if began_with is None or not is_here(config.encoder, source):
        return
    weights = find_weights(config.encoder, source)
    if weights is not None and weights.sha256 != began_with:
        raise UserError(
            f"{run_dir} began with other weights of its encoder (SHA-256 {began_with[:12]}… there, "
            f"{weights.sha256[:12]}… here); give the same --encoder_weights, or another --run_dir"
        )
