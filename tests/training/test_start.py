"""Promises about the weights that a new training starts from."""

import contextlib
import io

import torch

from pix2pix.export.generator import Generator
from tests.ranks import run_ranks
from tests.small_training import error_at_start, tensor_digests, tiny_config, trainer_of


def weights_at_start(config):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        trainer = trainer_of(config)
    state = trainer.state
    networks = (state.generator, state.ema_generator, state.discriminator)
    found = [tensor_digests(network.state_dict()) for network in networks]
    trainer.writer.release()
    trainer.distributed.shutdown()
    return found, " ".join(said.getvalue().split())


def test_an_export_gives_generator_and_average_and_a_fresh_discriminator(tiny_shards, tmp_path):
    torch.manual_seed(5)
    exported = Generator(image_size=64, width=4)
    exported.save_pretrained(tmp_path / "export")
    config = tiny_config(tiny_shards, tmp_path / "run", init_from=tmp_path / "export")
    fresh = run_ranks(weights_at_start, 1, tiny_config(tiny_shards, tmp_path / "fresh"))[0][0][2]
    (main, said), (other, nothing) = run_ranks(weights_at_start, 2, config)
    for generator, average, discriminator in (main, other):
        assert generator == average == tensor_digests(exported.state_dict())
        assert discriminator == fresh
    told = f"starting from the generator of {tmp_path / 'export'}, its average from the same"
    assert said.count(f"{told}; the discriminator is fresh") == 1
    assert nothing == ""


def test_an_export_of_another_network_is_refused_on_every_rank(tiny_shards, tmp_path):
    Generator(image_size=64, width=8).save_pretrained(tmp_path / "export")
    config = tiny_config(tiny_shards, tmp_path / "run", init_from=tmp_path / "export")
    for message in run_ranks(error_at_start, 2, config):
        assert "has generator_width 8, this training 4; networks must be alike" in message
