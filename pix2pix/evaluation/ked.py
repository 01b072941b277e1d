"""`ked_lite0`: a kernel distance on the features of EfficientNet-Lite0, which needs no download.

The network and its ImageNet weights come with the extra `pretrained`. The figure is comparable with
itself alone: not with KID, whose network is Inception.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from pix2pix.evaluation.features import cubic_kernel
from pix2pix.model.encoder_weights import packaged_file, pooled_network

KED = "ked_lite0"
NETWORK = "efficientnet_lite0"
NOT_MEASURED = "not measured; it needs pip install -e '.[pretrained]'"
SIDE = 224  # of the pictures that its weights were trained on, pixels
NUM_HALVINGS = 10
HALVING_SEED = 2020  # as that of KID's subsets


def is_installed() -> bool:
    """Return True if timm and the package of the weights are here."""
    try:
        import timm  # noqa: F401  two seconds
    except ImportError:
        return False
    return packaged_file(NETWORK) is not None


def load_features(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the pooled features, before the classifier: sRGB [B, 3, S, S] in [0, 1] → [B, 1280].

    Pictures are resized to 224 px (bilinear, antialiased).
    """
    pooled = pooled_network(NETWORK)
    network = pooled.network.eval().to(device).to(memory_format=torch.channels_last)
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (pooled.mean, pooled.std)
    )

    def features(rgb: Tensor) -> Tensor:
        if rgb.shape[-1] != SIDE:
            rgb = interpolate(rgb, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        normalized = ((rgb - mean) / std).contiguous(memory_format=torch.channels_last)
        found: Tensor = network(normalized)
        return found

    return features


def paired_distance(features: NDArray, reference: NDArray) -> float:
    """Return the squared MMD of the cubic kernel, unbiased for pictures in pairs.

    Row i of both is of one photograph, so the two are not independent, as those of KID are: the
    kernel of a pair with itself is left out between the sets, too (Gretton et al. 2012, Lemma 6,
    eq. 4). Otherwise the figure would be too low, below 0 for a good colorizer.

    features, reference: [N, D], N at least 2.
    """
    x, y = (np.asarray(rows, dtype=np.float64) for rows in (features, reference))
    crossed = cubic_kernel(x, y)
    kernel = cubic_kernel(x, x) + cubic_kernel(y, y) - crossed - crossed.T
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def floor(reference: NDArray) -> tuple[float, float]:
    """Return mean and standard deviation of the distance between two halves of true photographs.

    Ten random halvings with a fixed seed: what the figure can't tell from 0 at half the number.
    reference: [N, D], N at least 4.
    """
    random = np.random.default_rng(HALVING_SEED)
    half = len(reference) // 2
    distances = []
    for _ in range(NUM_HALVINGS):
        rows = random.permutation(len(reference))
        distances.append(paired_distance(reference[rows[:half]], reference[rows[half : 2 * half]]))
    return float(np.mean(distances)), float(np.std(distances))
