"""Color spaces on tensors: sRGB, linear light, CIE XYZ and CIE Lab (D65), and network ranges.

Pictures are [B, 3, H, W]. All arithmetic is float32 (float64 for float64 input), also under
autocast.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix.errors import UserError

COLOR_SPACES = ("lab", "rgb")

# IEC 61966-2-1 (sRGB) primaries with D65 white, 2° observer: the same numbers as scikit-image.
_XYZ_FROM_LINEAR = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_LINEAR_FROM_XYZ = torch.tensor(_XYZ_FROM_LINEAR, dtype=torch.float64).inverse().tolist()
_WHITE = (0.95047, 1.0, 1.08883)

# CIE 15:2004, 8.2.1: a cube root, replaced by a straight line below this ratio to white.
_LAB_THRESHOLD = (6 / 29) ** 3
_LAB_SLOPE = (29 / 6) ** 2 / 3
_LAB_OFFSET = 4 / 29


@dataclass(frozen=True)
class ColorSpace:
    """Input and output of the generator for `lab` or `rgb`.

    With `lab` the input is lightness and the output is the two chroma channels. Lightness always
    comes from the gray picture, in training and in coloring, so the network sees the same kind of
    input. With `rgb` the input is gray and the output is the three color channels.

    Raises:
        UserError: the name is neither `lab` nor `rgb`.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in COLOR_SPACES:
            raise UserError(
                f"color_space {self.name!r} is unknown; use one of {', '.join(COLOR_SPACES)}"
            )

    @property
    def condition_channels(self) -> int:
        """Return the number of input channels of the generator."""
        return 1

    @property
    def output_channels(self) -> int:
        """Return the number of output channels of the generator."""
        return 2 if self.name == "lab" else 3

    def condition(self, gray: Tensor) -> Tensor:
        """Return the generator's input for a gray picture.

        Args:
            gray: [B, 1, H, W] uint8, sRGB-encoded luma.

        Returns:
            [B, 1, H, W] float32 in [-1, 1].
        """
        if self.name == "lab":
            return lightness(gray.float() / 255) / 50 - 1
        return gray.float() / 127.5 - 1

    def target(self, color: Tensor) -> Tensor:
        """Return the output that the generator should produce for a color picture.

        Args:
            color: [B, 3, H, W] uint8, sRGB.

        Returns:
            [B, output_channels, H, W] float32 in [-1, 1].
        """
        if self.name == "lab":
            return rgb_to_lab(color.float() / 255)[:, 1:] / 110
        return color.float() / 127.5 - 1

    def chroma(self, output: Tensor) -> Tensor:
        """Return a and b (CIE Lab) of an output of the generator: [B, 2, H, W]."""
        if self.name == "lab":
            return output.float() * 110
        return rgb_to_lab((output.float() + 1) / 2)[:, 1:]

    def to_rgb(self, condition: Tensor, output: Tensor) -> Tensor:
        """Return the sRGB picture for an input and an output of the generator.

        Returns:
            [B, 3, H, W] in [0, 1]; colors outside sRGB are clipped per channel.
        """
        if self.name == "lab":
            return lab_to_rgb(torch.cat([(condition.float() + 1) * 50, self.chroma(output)], dim=1))
        return ((output.float() + 1) / 2).clamp(0, 1)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB [B, 3, H, W] in [0, 1] to Lab: L in [0, 100], a and b within about ±110."""
    return xyz_to_lab(linear_to_xyz(srgb_to_linear(rgb)))


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert Lab [B, 3, H, W] to sRGB in [0, 1]; clip per channel outside the gamut."""
    return linear_to_srgb(xyz_to_linear(lab_to_xyz(lab)).clamp(0, 1))


def fit_gamut(lab: Tensor) -> Tensor:
    """Reduce chroma until sRGB can show every color; keep L and hue.

    Clipping red, green and blue instead would change L and hue.

    Args:
        lab: [B, 3, H, W] with L in [0, 100].

    Returns:
        Lab of the same shape, with the chroma accurate to 1/256 of its value.
    """
    lab = at_least_float32(lab)
    outside = ~_is_in_gamut(lab)
    # [1, 3, N, 1]: only these pixels are processed, a few percent of a photograph.
    L, *ab = (channel[outside].view(1, 1, -1, 1) for channel in lab.unbind(dim=1))
    chroma = torch.cat(ab, dim=1)
    share = torch.zeros_like(L)
    for halving in range(1, 9):
        longer = share + 0.5**halving
        fits = _is_in_gamut(torch.cat([L, longer * chroma], dim=1)).unsqueeze(1)
        share = torch.where(fits, longer, share)
    scale = torch.ones_like(lab[:, 0]).masked_scatter(outside, share)
    return torch.cat([lab[:, :1], lab[:, 1:] * scale[:, None]], dim=1)


def lightness(gray: Tensor) -> Tensor:
    """Return L in [0, 100] of the neutral colors (gray, gray, gray); gray is sRGB in [0, 1]."""
    return 116 * _lab_curve(srgb_to_linear(gray)) - 16


def srgb_to_linear(rgb: Tensor) -> Tensor:
    """Undo the sRGB transfer curve (IEC 61966-2-1) of any shape, [0, 1] → [0, 1]."""
    rgb = at_least_float32(rgb)
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Apply the sRGB transfer curve (IEC 61966-2-1) to any shape, [0, 1] → [0, 1]."""
    linear = at_least_float32(linear)
    # `where` computes both branches: the clamp keeps the unused one free of NaN.
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curve)


def linear_to_xyz(linear: Tensor) -> Tensor:
    """Convert linear RGB [B, 3, H, W] to CIE XYZ with white at (0.95047, 1, 1.08883)."""
    return _mix_channels(at_least_float32(linear), _XYZ_FROM_LINEAR)


def xyz_to_linear(xyz: Tensor) -> Tensor:
    """Convert CIE XYZ [B, 3, H, W] to linear RGB; outside [0, 1] if sRGB cannot show the color."""
    return _mix_channels(at_least_float32(xyz), _LINEAR_FROM_XYZ)


def xyz_to_lab(xyz: Tensor) -> Tensor:
    """Convert CIE XYZ [B, 3, H, W] to CIE Lab for D65 white (CIE 15:2004, 8.2.1)."""
    channels = at_least_float32(xyz).unbind(dim=1)
    ratios = torch.stack([c / white for c, white in zip(channels, _WHITE, strict=True)])
    x, y, z = _lab_curve(ratios)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_xyz(lab: Tensor) -> Tensor:
    """Convert CIE Lab [B, 3, H, W] to CIE XYZ for D65 white."""
    L, a, b = at_least_float32(lab).unbind(dim=1)
    y = (L + 16) / 116
    channels = (y + a / 500, y, y - b / 200)
    return torch.stack(
        [_inverse_lab_curve(c) * white for c, white in zip(channels, _WHITE, strict=True)], dim=1
    )


def _is_in_gamut(lab: Tensor) -> Tensor:
    """Return [B, H, W] bool: sRGB can show the color, within a third of an 8-bit step."""
    linear = xyz_to_linear(lab_to_xyz(lab))
    return ((linear > -1e-4) & (linear < 1 + 1e-4)).all(dim=1)


def _lab_curve(ratio: Tensor) -> Tensor:
    root = ratio.clamp(min=_LAB_THRESHOLD) ** (1 / 3)
    return torch.where(ratio > _LAB_THRESHOLD, root, ratio * _LAB_SLOPE + _LAB_OFFSET)


def _inverse_lab_curve(value: Tensor) -> Tensor:
    return torch.where(value > 6 / 29, value**3, (value - _LAB_OFFSET) / _LAB_SLOPE)


def _mix_channels(image: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    # Weighted sums instead of matmul, which autocast would round to bfloat16, or a GPU to TF32.
    red, green, blue = image.unbind(dim=1)
    return torch.stack([r * red + g * green + b * blue for r, g, b in matrix], dim=1)


def at_least_float32(image: Tensor) -> Tensor:
    """Return it in float64 if it is, else in float32."""
    return image if image.dtype == torch.float64 else image.float()
