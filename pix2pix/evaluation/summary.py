"""From the scores of every photograph to the figures of a report, and by which conventions."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pix2pix.config import TrainConfig
from pix2pix.evaluation.feature_distance import (
    KID_SUBSET_SIZE,
    KID_SUBSETS,
    frechet_distance,
    kernel_distance,
)
from pix2pix.evaluation.metrics import HISTOGRAM_STEP, hellinger
from pix2pix.evaluation.scores import Scores

# Columns of scores are RUN/psnr and so on, BASELINE/psnr, and TRUTH/chroma_histogram.
RUN, TRUTH = "colorized", "truth"
BASELINES = ("gray", "mean_color", "true_chroma")
HISTOGRAM, FEATURES = "chroma_histogram", "features"
CURVE = "curve"


def photo_columns(scores: Scores, name: str) -> dict[str, np.ndarray]:
    """The metrics of each photograph, [N] each: of the run or of a baseline."""
    return {metric: column for metric, column in scores.of(name).items() if column.ndim == 1}


def summarize(scores: Scores, name: str, metrics: Sequence[str] = ()) -> dict[str, float]:
    """The figures of the run or of a baseline.

    The mean over photographs of each metric by its name; `…_of_means` and `…_of_set`, and those of
    `metrics` that are fid and kid, are figures of the whole set.
    """
    figures = {
        metric: float(column.mean()) for metric, column in photo_columns(scores, name).items()
    }
    for metric in ("colorfulness", "colorfulness_abs"):
        difference = figures[metric] - figures[f"{metric}_truth"]
        figures[f"delta_{metric}_of_means"] = abs(difference)
    histograms = (
        torch.from_numpy(scores.columns[f"{source}/{HISTOGRAM}"].sum(axis=0))
        for source in (name, TRUTH)
    )
    figures["histogram_distance_of_set"] = hellinger(*histograms).item()
    if "fid" in metrics or "kid" in metrics:
        features, reference = (scores.columns[f"{source}/{FEATURES}"] for source in (name, TRUTH))
        if "fid" in metrics:
            figures["fid"] = frechet_distance(features, reference)
        if "kid" in metrics:
            figures["kid"], figures["kid_deviation"] = kernel_distance(features, reference)
    return figures


def conventions(
    config: TrainConfig, weights: Mapping[str, str], num_samples: int, ab: tuple[float, float]
) -> dict[str, str]:
    """How everything was measured, for people; weights: of metrics that rest on a network."""
    size = config.image_size
    said = {
        "image": f"center square of the stored photograph, bilinear with antialiasing to {size} px,"
        " values rounded to 8 bits",
        "weights": "moving average" if config.ema_decay > 0 else "last step",
        "norm": "running statistics" if config.norm != "instance" else "of the photograph",
        "dropout": "off",
        "mean": "over photographs; _of_means and _of_set: of the whole set, as fid and kid",
        "psnr": "dB over R, G and B, at most 100",
        "ssim": "Gaussian window 11, sigma 1.5, mean of R, G and B, no border",
        "chroma_error": "mean distance in the ab plane of CIE Lab, D65",
        "delta_e": "mean CIEDE2000",
        "delta_e_76": "mean CIE76, the distance in CIE Lab",
        "chroma": "mean length of (a, b)",
        "colorfulness": "Hasler and Suesstrunk 2003, on values of 0 to 255",
        "colorfulness_abs": "the same of absolute opponent channels, as DDColor's code",
        "delta_colorfulness": "|colorfulness - colorfulness_truth| of each photograph; "
        "_of_means: of the two means",
        "histogram_distance": f"Hellinger, of ab histograms in squares of {HISTOGRAM_STEP}",
        CURVE: "the run with its chroma in CIE Lab times each saturation; straight between them",
        "gray": "the photograph as it is",
        "mean_color": f"the split's mean everywhere: a {ab[0]:.3f}, b {ab[1]:.3f}",
        "true_chroma": "the truth's a and b on the gray picture's lightness: the most that lab can",
    }
    reference = f"the same {num_samples} true photographs at {size} px"
    if "fid" in weights:
        said["fid"] = f"2,048 Inception features; reference: {reference}; {weights['fid']}"
    if "kid" in weights:
        how = f"{KID_SUBSETS} subsets of {KID_SUBSET_SIZE}"
        how = how if num_samples > KID_SUBSET_SIZE else "all at once"
        said["kid"] = f"as fid, cubic kernel, unbiased, {how}; {weights['kid']}"
    for metric in ("lpips", "lpips_vgg"):
        if metric in weights:
            said[metric] = f"version 0.1 with its linear weights, at {size} px; {weights[metric]}"
    return said
