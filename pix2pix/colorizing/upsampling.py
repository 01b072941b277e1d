"""Chroma from the network's size to the photograph's: bicubic, with detail that lightness gives."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

# (10 of L)²: where lightness varies less than that, its detail says little about the chroma.
_REGULARIZATION = 100.0


class GuidedChroma:
    """A network's chroma stretched to a photograph, its edges where the photograph has them.

    Bicubic stretching blurs over an edge of color by as much as a pixel of the network covers. The
    photograph's lightness L has the edge in full: what it differs by from its own stretched copy,
    times the slope of chroma against L around there (He et al. 2010, eq. 5; at low resolution, as
    in He & Sun 2015), is added. At the network's own size nothing is: its chroma stays as it was.
    The guided filter itself smooths; with true chroma at 256 px it is worse than bicubic
    (docs/coloring.md).

    chroma: a and b of CIE Lab, [2, S, S]; lightness: [S, S] in [0, 100], of the same photograph.
    size: (width, height) of the photograph in pixels.
    """

    def __init__(self, chroma: Tensor, lightness: Tensor, size: tuple[int, int]) -> None:
        planes = (*chroma, *_slopes(chroma, lightness), lightness)
        self._planes = [Image.fromarray(plane.cpu().numpy()) for plane in planes]
        self.size = size

    def rows(self, top: int, lightness: Tensor) -> Tensor:
        """a and b of some rows, [2, rows, width], from the photograph's L there, [rows, width].

        top: the first row. Rows come out alike, to rounding, however they are grouped.
        """
        bottom = top + len(lightness)
        stretched = [self._stretch(plane, top, bottom) for plane in self._planes]
        a, b, slope_a, slope_b, coarse = (plane.to(lightness.device) for plane in stretched)
        detail = lightness - coarse
        return torch.stack([a + slope_a * detail, b + slope_b * detail])

    def _stretch(self, plane: Image.Image, top: int, bottom: int) -> Tensor:
        width, height = self.size
        # With a box, Pillow still filters across its edges: strips meet without a seam.
        box = (0, top * plane.height / height, plane.width, bottom * plane.height / height)
        rows = plane.resize((width, bottom - top), Image.Resampling.BICUBIC, box=box)
        return torch.from_numpy(np.array(rows))


def _slopes(chroma: Tensor, lightness: Tensor) -> Tensor:
    """Slopes of a and b against lightness, [2, S, S]: over 3 × 3 pixels, then their mean there."""
    L = lightness[None]
    mean = _window_mean(L)
    variance = _window_mean(L * L) - mean * mean
    covariance = _window_mean(chroma * L) - _window_mean(chroma) * mean
    return _window_mean(covariance / (variance + _REGULARIZATION))


def _window_mean(planes: Tensor) -> Tensor:
    return avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
