"""Which generator: the U-Net of the paper, or a decoder on a pretrained encoder."""

import torch
from torch import nn

from pix2pix.model.networks import UNetGenerator, initialize

NO_ENCODER = "none"


def make_generator(
    in_channels: int,
    out_channels: int,
    image_size: int,
    width: int,
    norm: str,
    dropout: bool,
    encoder: str = NO_ENCODER,
    encoder_scale: int = 1,
) -> nn.Module:
    """Return a generator on the CPU with random weights.

    encoder: a backbone of timm, or "none" for the U-Net, which has no `encoder_scale`. Raises
    UserError where one of the values is impossible, and where timm is missing.
    """
    if encoder == NO_ENCODER:
        return UNetGenerator(in_channels, out_channels, image_size, width, norm, dropout)
    from pix2pix.model.encoder import EncoderGenerator  # the U-Net does without

    settings = (image_size, width, norm, dropout, encoder_scale)
    return EncoderGenerator(in_channels, out_channels, encoder, *settings)


def initialize_generator(generator: nn.Module, random: torch.Generator) -> None:
    """Draw a generator's weights as `initialize` does, but for a backbone, which timm has drawn."""
    for name, module in generator.named_children():
        if name != "encoder":
            initialize(module, random)


def encoder_of(generator: nn.Module) -> nn.Module | None:
    """Return the backbone of a generator, or None for the U-Net."""
    return getattr(generator, "encoder", None)
