"""The two networks of pix2pix: a U-Net that colors and a PatchGAN that judges.

Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", section 6.1.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pix2pix.errors import UserError
from pix2pix.model.size import KERNEL, MAX_WIDENING, unet_widths

NORMS = ("batch", "instance", "sync_batch")
IMAGE_SIZES = (64, 128, 256, 512)

MAX_DROPOUT_BLOCKS = 3


class UNetGenerator(nn.Module):
    """Encoder and decoder with a skip connection at every level, down to a 1×1 bottom.

    condition ─ down 64 ─ down 128 ─ down 256 ─ … ─ bottom      Each down-block halves the sides,
                  │          │          │              │        each up-block doubles them. Input
     output  ─── up ─────── up 64 ──── up 128 ─ … ─────┘        of an up-block: below ⧺ its skip.

    Args:
        in_channels: channels of the condition.
        out_channels: channels of the output.
        image_size: 64, 128, 256 or 512 pixels; the number of levels is log2(image_size).
        width: channels of the outermost level.
        norm: a name in NORMS.
        dropout: whether the innermost up-blocks have dropout.

    Raises:
        UserError: `image_size` or `norm` is not one of these.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_size: int = 256,
        width: int = 64,
        norm: str = "batch",
        dropout: bool = True,
    ):
        super().__init__()
        if image_size not in IMAGE_SIZES:
            raise UserError(f"image_size {image_size} is not possible; use one of {IMAGE_SIZES}")
        levels = image_size.bit_length() - 1
        *widths, bottom = unet_widths(image_size, width)
        # Only up-blocks of full width have dropout, as in the published code: 128 px has two of
        # them, 64 px one.
        dropout_blocks = min(MAX_DROPOUT_BLOCKS, levels - 5) if dropout else 0

        self.down = nn.ModuleList([_conv(in_channels, widths[0], norm)])
        for wide, wider in pairwise(widths):
            self.down.append(
                nn.Sequential(
                    nn.LeakyReLU(0.2), _conv(wide, wider, norm), normalization(wider, norm)
                )
            )
        # No norm after the innermost convolution: its maps are 1×1, so a batch of one photograph
        # would have a single value to normalize.
        self.bottom = nn.Sequential(
            nn.LeakyReLU(0.2), _conv(widths[-1], bottom, norm), *_up(bottom, widths[-1], norm)
        )
        self.up = nn.ModuleList()
        for index, (wide, narrower) in enumerate(pairwise(reversed(widths))):
            block = _up(2 * wide, narrower, norm)
            if index < dropout_blocks:
                block.append(nn.Dropout(0.5))
            self.up.append(block)
        self.up.append(
            nn.Sequential(
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(2 * widths[0], out_channels, KERNEL, stride=2, padding=1),
                nn.Tanh(),
            )
        )

    def forward(self, condition: Tensor) -> Tensor:
        """Color a batch.

        Args:
            condition: [B, in_channels, H, W] in [-1, 1]; H and W are multiples of 2**levels, as
                image_size is.

        Returns:
            [B, out_channels, H, W] in [-1, 1].
        """
        x = condition
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = self.bottom(x)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(_Join.apply(skip, x))
        return x


class _Join(torch.autograd.Function):
    """Concatenate channels; the gradients are two tensors, not two slices of one.

    On a CPU the backward pass of batch norm takes several times as long for a slice, because its
    channels are not contiguous.
    """

    @staticmethod
    def forward(ctx: Any, skip: Tensor, x: Tensor) -> Tensor:
        ctx.channels = [skip.shape[1], x.shape[1]]
        return torch.cat([skip, x], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        parts = gradient.split(ctx.channels, dim=1)
        if gradient.device.type != "cpu":  # a GPU reads slices as fast: a copy costs bandwidth only
            return tuple(parts)
        return tuple(part.clone() for part in parts)


class PatchDiscriminator(nn.Module):
    """Judge overlapping patches: one logit per patch, positive if it looks real.

    Its batch norm keeps no running statistics, because a discriminator always uses the statistics
    of its batch. So it has no rank-local state to save, and the forward pass of a generator step
    leaves it unchanged to the bit.

    Args:
        in_channels: channels of condition and image together.
        width: channels of the first layer.
        num_layers: number of stride-2 convolutions. It sets the side of the patch that a logit
            sees: 1 to 5 layers give 16, 34, 70, 142, 286 px.
        norm: a name in NORMS.

    Raises:
        UserError: `norm` is unknown.
    """

    def __init__(self, in_channels: int, width: int = 64, num_layers: int = 3, norm: str = "batch"):
        super().__init__()
        widths = [width * min(2**layer, MAX_WIDENING) for layer in range(num_layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, widths[0], KERNEL, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        strides = [2] * num_layers + [1, 1]
        for (wide, wider), stride in zip(pairwise(widths), strides[1:-1], strict=True):
            layers += [
                _conv(wide, wider, norm, stride),
                normalization(wider, norm, running_statistics=False),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, KERNEL, stride=strides[-1], padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        """Judge whether images belong to their conditions.

        Args:
            condition: [B, ·, H, W] in [-1, 1].
            image: [B, ·, H, W] in [-1, 1].

        Returns:
            Patch logits [B, 1, h, w]; 30×30 for 256 px and three stride-2 layers.
        """
        logits: Tensor = self.layers(torch.cat([condition, image], dim=1))
        return logits


@torch.no_grad()
def initialize(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw a network's weights: N(0, 0.02) for convolutions, N(1, 0.02) for norm scales, biases 0.

    Isola et al. 2017, section 6.2. The values depend only on the state of `generator` (the global
    one if it is None), not on the module's device or memory format.
    """

    def draw(parameter: Tensor, mean: float) -> None:
        # Drawn into a contiguous tensor on the generator's device, then copied: filling a
        # channels_last or CUDA tensor in place would use the numbers in another order.
        device = generator.device if generator is not None else "cpu"
        values = torch.empty(parameter.shape, device=device)
        parameter.copy_(values.normal_(mean, 0.02, generator=generator))

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            draw(layer.weight, mean=0.0)
        elif isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
            draw(layer.weight, mean=1.0)
        else:
            continue
        if layer.bias is not None:
            layer.bias.zero_()


def _conv(in_channels: int, out_channels: int, norm: str, stride: int = 2) -> nn.Conv2d:
    bias = _has_bias(norm)
    return nn.Conv2d(in_channels, out_channels, KERNEL, stride=stride, padding=1, bias=bias)


def _up(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    # In place: nothing else reads the preceding concatenation, which is the largest map.
    return nn.Sequential(
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(
            in_channels, out_channels, KERNEL, stride=2, padding=1, bias=_has_bias(norm)
        ),
        normalization(out_channels, norm),
    )


def _has_bias(norm: str) -> bool:
    # Batch norm has its own bias. Instance norm (not affine) has none, so the convolutions have
    # one. As published, this also holds for the generator's first and innermost convolution.
    return norm == "instance"


def normalization(channels: int, norm: str, running_statistics: bool = True) -> nn.Module:
    """Return the normalization layer `norm` of so many channels; raises UserError for another."""
    match norm:
        case "batch":
            return nn.BatchNorm2d(channels, track_running_stats=running_statistics)
        case "sync_batch":
            return nn.SyncBatchNorm(channels, track_running_stats=running_statistics)
        case "instance":
            return nn.InstanceNorm2d(channels)
    raise UserError(f"norm {norm!r} is unknown; use one of {', '.join(NORMS)}")
