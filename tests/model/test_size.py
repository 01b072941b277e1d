"""Sizes by arithmetic are those of the networks themselves."""

from pathlib import Path

import pytest
import torch

from pix2pix.benchmark.memory import kept_bytes as kept_by_autograd
from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch
from pix2pix.model.color import COLOR_SPACES, ColorSpace
from pix2pix.model.networks import PatchDiscriminator, UNetGenerator
from pix2pix.model.size import CHANNELS, discriminator_size, kept_bytes, unet_size
from pix2pix.run.state import build_state
from pix2pix.training.step import AdversarialStep


def test_the_channels_are_those_of_the_color_spaces():
    spaces = {name: ColorSpace(name) for name in COLOR_SPACES}
    found = {name: (s.condition_channels, s.output_channels) for name, s in spaces.items()}
    assert found == CHANNELS


@pytest.mark.parametrize("color_space", ["lab", "rgb"])
@pytest.mark.parametrize("norm", ["batch", "sync_batch", "instance"])
@pytest.mark.parametrize(("image_size", "width"), [(64, 4), (256, 64), (512, 32)])
def test_parameters_are_counted_exactly(color_space, norm, image_size, width):
    condition, output = CHANNELS[color_space]
    with torch.device("meta"):
        generator = UNetGenerator(condition, output, image_size, width, norm)
        discriminator = PatchDiscriminator(condition + output, width, norm=norm)
    for network, size in (
        (generator, unet_size(color_space, image_size, width, norm)),
        (discriminator, discriminator_size(color_space, image_size, width, norm)),
    ):
        assert size.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("color_space", "norm", "precision", "image_size", "width"),
    [
        ("lab", "batch", "no", 64, 32),
        ("lab", "batch", "bf16", 64, 32),
        ("rgb", "instance", "no", 64, 16),
        ("lab", "batch", "no", 128, 16),
    ],
)
def test_what_backward_keeps_of_a_photograph_is_what_autograd_counts(
    color_space, norm, precision, image_size, width
):
    config = TrainConfig(
        shards=(".",),
        run_dir=Path(),
        color_space=color_space,
        norm=norm,
        image_size=image_size,
        generator_width=width,
        discriminator_width=width,
        dropout=False,  # its masks are left out: less than 0.5 % at full size
        total_steps=10,
    )
    state = build_state(config, torch.device("cpu"))

    def kept(size: int) -> int:
        step = AdversarialStep(config, state, state.generator, state.discriminator, precision)
        return kept_by_autograd(lambda: step([Batch.blank(size, image_size)]))

    networks = color_space, image_size, width, norm
    activations = unet_size(*networks).activations + discriminator_size(*networks).activations
    computed = kept_bytes(color_space, image_size, activations, half=precision != "no")
    assert computed == pytest.approx(kept(3) - kept(2), rel=0.02)
