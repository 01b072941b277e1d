"""Chroma upsampled from the network's size to the photograph's: bicubic, with lightness detail."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

# (10 of L)²: if lightness varies less than that, its detail says little about the chroma.
_REGULARIZATION = 100.0


class GuidedChroma:
    """A network's chroma upsampled to a photograph, with the edges of the photograph.

    Bicubic upsampling blurs an edge of color over about one pixel of the network. The photograph's
    lightness L has the sharp edge. So the difference between L and its own upsampled copy is
    multiplied by the local slope of chroma against L (He et al. 2010, eq. 5; at low resolution, as
    in He & Sun 2015), and added. At the network's own size the chroma is unchanged. The guided
    filter itself smooths; with true chroma at 256 px it is worse than bicubic (docs/coloring.md).

    Args:
        chroma: a and b of CIE Lab, [2, S, S].
        lightness: [S, S] in [0, 100], of the same photograph.
        size: (width, height) of the photograph in pixels.
    """

    def __init__(self, chroma: Tensor, lightness: Tensor, size: tuple[int, int]) -> None:
        planes = (*chroma, *_slopes(chroma, lightness), lightness)
        self._planes = [Image.fromarray(plane.cpu().numpy()) for plane in planes]
        self.size = size

    def rows(self, top: int, lightness: Tensor) -> Tensor:
        """Return a and b of some rows, [2, rows, width].

        Grouping the rows differently changes the result only by rounding.

        Args:
            top: the first row.
            lightness: the photograph's L in these rows, [rows, width].
        """
        bottom = top + len(lightness)
        stretched = [self._stretch(plane, top, bottom) for plane in self._planes]
        a, b, slope_a, slope_b, coarse = (plane.to(lightness.device) for plane in stretched)
        detail = lightness - coarse
        return torch.stack([a + slope_a * detail, b + slope_b * detail])

    def _stretch(self, plane: Image.Image, top: int, bottom: int) -> Tensor:
        width, height = self.size
        # Pillow filters across the edges of a box: strips meet without a seam.
        box = (0, top * plane.height / height, plane.width, bottom * plane.height / height)
        rows = plane.resize((width, bottom - top), Image.Resampling.BICUBIC, box=box)
        return torch.from_numpy(np.array(rows))


def _slopes(chroma: Tensor, lightness: Tensor) -> Tensor:
    """Return the slopes of a and b against lightness, [2, S, S], averaged over 3 × 3 pixels."""
    L = lightness[None]
    mean = _window_mean(L)
    variance = _window_mean(L * L) - mean * mean
    covariance = _window_mean(chroma * L) - _window_mean(chroma) * mean
    return _window_mean(covariance / (variance + _REGULARIZATION))


def _window_mean(planes: Tensor) -> Tensor:
    return avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
