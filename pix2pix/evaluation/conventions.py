"""How every figure of a report was measured, in words for people."""

from collections.abc import Mapping

from pix2pix.config import TrainConfig
from pix2pix.evaluation.features import KID_SUBSET_SIZE, KID_SUBSETS
from pix2pix.evaluation.ked import KED, NETWORK, NOT_MEASURED, NUM_HALVINGS, SIDE
from pix2pix.evaluation.metrics import HISTOGRAM_STEP


def conventions(
    config: TrainConfig, weights: Mapping[str, str], num_samples: int, ab: tuple[float, float]
) -> dict[str, str]:
    """Return how everything was measured; weights: of metrics that rest on a network."""
    size = config.image_size
    said = {
        "image": f"center square of the stored photograph, bilinear with antialiasing to {size} px,"
        " values rounded to 8 bits",
        "weights": "moving average" if config.ema_decay > 0 else "last step",
        "norm": "running statistics" if config.norm != "instance" else "of the photograph",
        "dropout": "off",
        "mean": "over photographs; _of_means and _of_set: of the whole set, as fid, kid and "
        "ked_lite0",
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
        "curve": "the run with its chroma in CIE Lab times each saturation; straight between them",
        "gray": "the photograph as it is",
        "mean_color": f"the split's mean everywhere: a {ab[0]:.3f}, b {ab[1]:.3f}",
        "true_chroma": "the truth's a and b on the gray picture's lightness: the most that lab can",
    }
    reference = f"the same {num_samples} true photographs at {size} px"
    said[KED] = (
        f"squared MMD, cubic kernel, unbiased, of pooled features of {NETWORK} at {SIDE} px; "
        f"reference: {reference}; {weights[KED]}; _floor: of {NUM_HALVINGS} random halvings of them"
        if KED in weights
        else NOT_MEASURED
    )
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
