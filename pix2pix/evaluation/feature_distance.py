"""How far apart two sets of pictures are, from a network's features of them: FID and KID.

Features are [N, D], a row for each picture. Everything is computed in float64.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
KID_SEED = 2020  # torch-fidelity's default


class KernelDistance(NamedTuple):
    """KID, and its standard deviation over the subsets (0 where there is one only)."""

    mean: float
    deviation: float


def frechet_distance(features: NDArray, reference: NDArray) -> float:
    """Fréchet distance of the Gaussians that the features have (Heusel et al. 2017, eq. 6).

    At least 2 pictures each. With fewer pictures than features (2,048 for Inception) it still has
    a value, far above that of the same pictures in larger numbers.
    """
    (mean, root), (reference_mean, reference_root) = map(_moments, (features, reference))
    # tr √(ΣΣ') is the sum of the singular values of √Σ·√Σ' (the nuclear norm). The roots may be
    # any with √Σᵀ√Σ = Σ: no square root of a product that is not symmetric, and no complex rest.
    crossed = np.linalg.norm(root @ reference_root.T, ord="nuc")
    spread = np.square(root).sum() + np.square(reference_root).sum() - 2 * crossed
    return float(np.square(mean - reference_mean).sum() + spread)


def kernel_distance(
    features: NDArray,
    reference: NDArray,
    num_subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
) -> KernelDistance:
    """Squared MMD with a cubic kernel, unbiased (Bińkowski et al. 2018, section 4; their code).

    The mean over subsets drawn with a fixed seed, in the order of torch-fidelity; of all pictures
    at once where a set has no more than subset_size. At least 2 pictures each.
    """
    features, reference = (np.asarray(a, dtype=np.float64) for a in (features, reference))
    if min(len(features), len(reference)) <= subset_size:
        return KernelDistance(_squared_mmd(features, reference), 0.0)
    random = np.random.RandomState(KID_SEED)
    values = []
    for _ in range(num_subsets):
        chosen, compared = (
            rows[random.choice(len(rows), subset_size, replace=False)]
            for rows in (features, reference)
        )
        values.append(_squared_mmd(chosen, compared))
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def _moments(features: NDArray) -> tuple[NDArray, NDArray]:
    """Mean [D], and a root [at most D, D] of the covariance: rootᵀ root."""
    rows = np.asarray(features, dtype=np.float64)
    mean = rows.mean(axis=0)
    centered = (rows - mean) / np.sqrt(len(rows) - 1)
    if len(rows) > rows.shape[1]:
        centered = np.asarray(np.linalg.qr(centered, mode="r"))  # smaller, and the same product
    return mean, centered


def _squared_mmd(x: NDArray, y: NDArray) -> float:
    """Gretton et al. 2012, eq. 3: pairs of a picture with itself are left out within a set."""
    within = sum(
        (kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1))
        for kernel in (_cubic_kernel(x, x), _cubic_kernel(y, y))
    )
    return float(within - 2 * _cubic_kernel(x, y).mean())


def _cubic_kernel(x: NDArray, y: NDArray) -> NDArray:
    return (x @ y.T / x.shape[1] + 1) ** 3
