"""Metrics of colored photographs: PSNR, SSIM, chroma error, colorfulness; one value for each.

Inputs are sRGB [B, 3, H, W] in [0, 1], outputs [B] in float64. A truth of [1, 3, H, W] stands
beside every picture: several colorings of one photograph share what is computed of it. Pixels are
worked on in the precision of the inputs, at least float32, which costs a third of float64; means
are float64. No sums over photographs, no ranks.
"""

import math

import torch
from torch import Tensor

from pix2pix.model.color import at_least_float32, rgb_to_lab

PSNR_CAP = 100.0  # dB

# Histograms of chroma: squares of the ab plane, the grid of Zhang et al. 2016, section 2.2,
# centered on multiples of 10: an edge at 0 would part grays by their rounding.
HISTOGRAM_STEP = 10  # in a and b
HISTOGRAM_SIDE = 23  # squares: centers from -110 to 110, which holds all of sRGB


def photo_metrics(rgb: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Compare colored photographs with the true ones, by name of the metric.

    rgb and truth: sides of at least 11 px. Both are rounded to 8 bits first, so that what a picture
    file would hold is what is measured.
    """
    rgb, truth = quantize(rgb), quantize(truth)
    return _basic_metrics(rgb, truth, rgb_to_lab(rgb), rgb_to_lab(truth))


def detailed_metrics(
    rgb: Tensor, truth: Tensor, lab: Tensor, lab_truth: Tensor
) -> dict[str, Tensor]:
    """Return what `photo_metrics` does, and the other metrics of a report.

    rgb and truth: as `quantize` gives them; lab and lab_truth: the same in CIE Lab.
    """
    from pix2pix.model.color_difference import delta_e_76, delta_e_2000  # no training needs them

    values = _basic_metrics(rgb, truth, lab, lab_truth) | {
        "delta_e": _pixel_mean(delta_e_2000(lab, lab_truth)),
        "delta_e_76": _pixel_mean(delta_e_76(lab, lab_truth)),
        "chroma": mean_chroma(lab),
        "chroma_truth": mean_chroma(lab_truth).expand(len(lab)),
        "colorfulness_abs": colorfulness_abs(rgb),
        "colorfulness_abs_truth": colorfulness_abs(truth).expand(len(rgb)),
        "histogram_distance": hellinger(chroma_histogram(lab), chroma_histogram(lab_truth)),
    }
    for name in ("colorfulness", "colorfulness_abs"):
        values[f"delta_{name}"] = (values[name] - values[f"{name}_truth"]).abs()
    return values


def _basic_metrics(rgb: Tensor, truth: Tensor, lab: Tensor, lab_truth: Tensor) -> dict[str, Tensor]:
    return {
        "psnr": psnr(rgb, truth),
        "ssim": ssim(rgb, truth),
        "chroma_error": chroma_error(lab, lab_truth),
        "colorfulness": colorfulness(rgb),
        "colorfulness_truth": colorfulness(truth).expand(len(rgb)),
    }


def quantize(rgb: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the nearest multiple of 1/255, in at least float32."""
    return (at_least_float32(rgb).clamp(0, 1) * 255).round() / 255


def to_bytes(rgb: Tensor) -> Tensor:
    """Return what a picture file would hold: uint8, of any shape, from [0, 1]."""
    return (quantize(rgb) * 255).round().byte()


def psnr(rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB over all pixels and channels.

    Capped at 100 dB, which is what identical pictures get: infinity would spoil every mean.
    """
    squared_error = _pixel_mean((rgb - truth).square().sum(dim=1)) / 3
    return -10 * squared_error.clamp(min=10 ** (-PSNR_CAP / 10)).log10()


def ssim(rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity, the mean of R, G, B and of all windows that lie inside.

    Wang et al. 2004, eq. 13: Gaussian window 11×11, σ = 1.5, K1 = 0.01, K2 = 0.03, range 1. The
    same as scikit-image; torchmetrics also averages over reflected borders.
    """
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = _window_mean(rgb), _window_mean(truth)
    products, squares_x, squares_y = mean_x * mean_y, mean_x.square(), mean_y.square()
    variance_x = _window_mean(rgb.square()) - squares_x
    variance_y = _window_mean(truth.square()) - squares_y
    covariance = _window_mean(rgb * truth) - products
    similarity = ((2 * products + c1) * (2 * covariance + c2)) / (
        (squares_x + squares_y + c1) * (variance_x + variance_y + c2)
    )
    return _pixel_mean(similarity.mean(dim=1))


def chroma_error(lab: Tensor, lab_truth: Tensor) -> Tensor:
    """Return the mean distance in the ab plane of CIE Lab (D65); lightness does not matter."""
    difference = lab[:, 1:] - lab_truth[:, 1:]
    return _pixel_mean(torch.hypot(difference[:, 0], difference[:, 1]))


def mean_chroma(lab: Tensor) -> Tensor:
    """Return the mean over pixels of the length of (a, b); lab: [B, 3, H, W]. 0 is gray."""
    return _pixel_mean(torch.hypot(lab[:, 1], lab[:, 2]))


def chroma_histogram(lab: Tensor) -> Tensor:
    """Count pixels by their a and b: [B, 23, 23] int32, rows by a and columns by b.

    lab: [B, 3, H, W]. What lies further out is counted in the outermost.
    """
    side = HISTOGRAM_SIDE
    bins = (lab[:, 1:] / HISTOGRAM_STEP).round().long() + side // 2
    a, b = bins.clamp(0, side - 1).flatten(start_dim=2).unbind(dim=1)
    photo = torch.arange(len(lab), device=lab.device).unsqueeze(1)
    counts = torch.bincount(((photo * side + a) * side + b).flatten(), minlength=len(lab) * side**2)
    return counts.view(len(lab), side, side).int()


def hellinger(histogram: Tensor, other: Tensor) -> Tensor:
    """Return the Hellinger distance of histograms [..., N, M] of counts: 0 equal, 1 disjoint.

    √(1 − BC), where BC = Σ √(p·q) is Bhattacharyya's coefficient of the shares p and q.
    """
    p, q = (
        counts.double() / counts.sum(dim=(-2, -1), keepdim=True) for counts in (histogram, other)
    )
    return (1 - (p * q).sqrt().sum(dim=(-2, -1))).clamp(min=0).sqrt()


def colorfulness(rgb: Tensor) -> Tensor:
    """Return the metric of Hasler & Süsstrunk 2003 on 0–255: 0 is gray, a photograph about 45.

    Opponent channels keep their sign, as in the paper; the standard deviations are those of the
    population of pixels.
    """
    return _spread_and_offset(_opponents(rgb))


def colorfulness_abs(rgb: Tensor) -> Tensor:
    """Return `colorfulness` of the absolute opponent channels: mostly lower, and not the paper's.

    The code that DDColor and others after it print figures of.
    """
    return _spread_and_offset(_opponents(rgb).abs())


def _opponents(rgb: Tensor) -> Tensor:
    """Return red − green and yellow − blue: [B, 2, H·W]."""
    red, green, blue = (255 * rgb).unbind(dim=1)
    return torch.stack([red - green, (red + green) / 2 - blue], dim=1).flatten(start_dim=2)


def _spread_and_offset(opponents: Tensor) -> Tensor:
    mean = opponents.mean(dim=2, dtype=torch.float64)
    centered = opponents - mean.to(opponents.dtype).unsqueeze(2)
    spread = centered.square().mean(dim=2, dtype=torch.float64).sum(dim=1).sqrt()
    return spread + 0.3 * mean.norm(dim=1)


def chroma_colorfulness(chroma: Tensor) -> Tensor:
    """Return the first metric of Hasler & Süsstrunk 2003, in CIE Lab: σ_ab + 0.37 μ_ab.

    chroma: a and b, [B, 2, H, W] → [B] in its own precision. Cheap where a and b are at hand, as in
    training; another scale than `colorfulness`, to be compared with the truth's alone.
    """
    pixels = chroma.flatten(start_dim=2)
    spread = pixels.var(dim=2, correction=0).sum(dim=1).sqrt()
    return spread + 0.37 * pixels.mean(dim=2).norm(dim=1)


def _window_mean(image: Tensor) -> Tensor:
    # Shifted pictures, added: cuDNN would round a convolution to TF32, and torch's own of a single
    # channel takes ten times as long in float64.
    weights = [math.exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-5, 6)]
    total = sum(weights)
    for dim in (-2, -1):
        inside = image.shape[dim] - 10
        mean = torch.zeros_like(image.narrow(dim, 0, inside))
        for offset, weight in enumerate(weights):
            mean.add_(image.narrow(dim, offset, inside), alpha=weight / total)
        image = mean
    return image


def _pixel_mean(plane: Tensor) -> Tensor:
    """Return the mean of [B, H, W] over pixels: [B] float64."""
    return plane.mean(dim=(1, 2), dtype=torch.float64)
