"""How large the networks are, by arithmetic: their parameters, and what backward keeps.

No torch, so that a command can say what a training costs before anything is imported. The tests
hold every figure against the networks themselves. For the U-Net alone: timm knows its encoders.
"""

from itertools import pairwise
from typing import NamedTuple

KERNEL = 4
MAX_WIDENING = 8  # channels double per level up to 8 × width: 64, 128, 256, 512, 512, …
CHANNELS = {"lab": (1, 2), "rgb": (1, 3)}  # of condition and output


class Size(NamedTuple):
    """One network.

    parameters: their number. activations: numbers that autograd keeps of one photograph until
    backward.
    """

    parameters: int
    activations: int


def unet_widths(image_size: int, width: int) -> list[int]:
    """Return the channels of each level of the U-Net, the bottom last."""
    levels = image_size.bit_length() - 1
    return [width * min(2**level, MAX_WIDENING) for level in range(levels)]


def unet_size(color_space: str, image_size: int, width: int, norm: str) -> Size:
    """Return the size of `UNetGenerator`.

    What is kept: the input of each convolution and of each norm, and the slope of each activation,
    which is its input, its output if it works in place, or the tanh's output. Dropout's masks are
    left out: less than 0.5 %.
    """
    condition, output = CHANNELS[color_space]
    *widths, bottom = unet_widths(image_size, width)
    maps = [(image_size >> level + 1) ** 2 for level in range(len(widths) + 1)]  # pixels
    weights = [(condition, widths[0]), *pairwise([*widths, bottom]), (bottom, widths[-1])]
    weights += [(2 * wide, narrow) for wide, narrow in pairwise(reversed(widths))]
    normed = [*widths[1:], *reversed(widths)]
    count = sum(KERNEL**2 * a * b for a, b in weights) + KERNEL**2 * 2 * widths[0] * output
    biases = [b for _, b in weights] if norm == "instance" else []
    affine = [] if norm == "instance" else normed
    kept = condition * image_size**2 + output * image_size**2 + bottom
    for level, (channels, pixels) in enumerate(zip(widths, maps, strict=False)):
        # Down: the skip, what the leaky ReLU makes of it, and, where there is a norm, its input.
        # Up: the input of the norm, and the concatenation, on which its ReLU works in place.
        kept += channels * pixels * ((2 if level == 0 else 3) + 1 + 2)
    return Size(
        parameters=count + sum(biases) + 2 * sum(affine) + output,
        activations=kept,
    )


def discriminator_size(
    color_space: str, image_size: int, width: int, norm: str, num_layers: int = 3
) -> Size:
    """Return the size of `PatchDiscriminator`; kept: the input of each convolution and norm."""
    channels = sum(CHANNELS[color_space])
    widths = [width * min(2**layer, MAX_WIDENING) for layer in range(num_layers + 1)]
    weights = [(channels, widths[0]), *pairwise([*widths, 1])]
    normed = widths[1:]
    side, kept = image_size, channels * image_size**2
    for level, wide in enumerate(widths):
        side = side // 2 if level < num_layers else side - 1  # 4×4, padding 1, stride 2 or 1
        kept += wide * side**2 * (1 if level == 0 else 2)
    biases = [b for _, b in weights] if norm == "instance" else [widths[0], 1]
    affine = [] if norm == "instance" else normed
    return Size(
        parameters=sum(KERNEL**2 * a * b for a, b in weights) + sum(biases) + 2 * sum(affine),
        activations=kept,
    )


def kept_bytes(color_space: str, image_size: int, activations: int, half: bool) -> int:
    """Return what a step keeps of one photograph, in bytes, where the two passes overlap most.

    That is while the discriminator judges: its graph, and the generator's. half: autocast keeps
    two bytes of a number (fp16, bf16); the photograph itself stays in fp32.
    """
    inputs = 4 * sum(CHANNELS[color_space]) * image_size**2
    return inputs + (2 if half else 4) * activations
