"""Metrics that rest on networks others have trained: FID and KID on Inception's features, LPIPS.

The weights are files that you bring: nothing here reaches for a network.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pix2pix.errors import UserError

INCEPTION_FEATURES = 2048
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
KID_SEED = 2020  # torch-fidelity's default


class WeightFile(NamedTuple):
    """A published file: names it goes by, and where it is. The digits in it begin its SHA-256."""

    names: tuple[str, ...]
    folder: str


INCEPTION = WeightFile(
    # pytorch-fid publishes the same bytes under the second name.
    ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0",
)
ALEXNET = WeightFile(("alexnet-owt-7be5be79.pth",), "https://download.pytorch.org/models")
VGG16 = WeightFile(("vgg16-397923af.pth",), "https://download.pytorch.org/models")
NEEDED = {"fid": INCEPTION, "kid": INCEPTION, "lpips": ALEXNET, "lpips_vgg": VGG16}
LPIPS_TRUNKS = {"lpips": "alex", "lpips_vgg": "vgg"}


@dataclass(frozen=True)
class FeatureNetworks:
    """The networks that the metrics asked for need.

    features: uint8 [B, 3, H, W] → [B, D] float32; None if neither FID nor KID is asked for.
    distances: by metric, two pictures [B, 3, H, W] in [0, 1] each → [B].
    weights: by metric, file and checksum, for the report.
    ked: sRGB [B, 3, S, S] in [0, 1] → [B, 1280]; None where its extra is not installed.
    """

    features: Callable[[Tensor], Tensor] | None
    distances: dict[str, Callable[[Tensor, Tensor], Tensor]]
    weights: dict[str, str]
    ked: Callable[[Tensor], Tensor] | None = None


def load_networks(
    metrics: Sequence[str], folder: Path | None, device: torch.device
) -> FeatureNetworks:
    """Load from `folder`, or from where torch.hub keeps its files, what `metrics` need.

    Raises UserError where a file or a package is missing, naming it and where it is to be had, and
    where a file is damaged.
    """
    found = {metric: find_weights(metric, folder) for metric in metrics}
    inception = found.get("fid") or found.get("kid")
    return FeatureNetworks(
        features=load_inception(inception, device) if inception else None,
        distances={
            metric: load_lpips(trunk, found[metric], device)
            for metric, trunk in LPIPS_TRUNKS.items()
            if metric in found
        },
        weights={metric: describe(path) for metric, path in found.items()},
    )


def find_weights(metric: str, folder: Path | None) -> Path:
    """Return the file with the weights of `metric`. Raises UserError where it isn't there."""
    needed = NEEDED[metric]
    folder = folder or Path(torch.hub.get_dir(), "checkpoints")
    for name in needed.names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"--metrics {metric} needs the file {needed.names[0]}, and {folder} has none. Bring it "
        f"from {needed.folder}/{needed.names[0]} into that folder, or into another and name it "
        "with --weights; nothing is downloaded from here"
    )


def load_inception(path: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """torch-fidelity's port of the Inception that FID is defined by (Heusel et al. 2017).

    It enlarges pictures to 299 px as TensorFlow 1 did.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise _package_missing("fid and kid", "torch-fidelity") from None
    _read_weights(path)  # it would unpickle the file without asking what is in it
    try:
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            [str(INCEPTION_FEATURES)],
            feature_extractor_weights_path=str(path),
        ).to(device)
    except (RuntimeError, KeyError) as error:
        raise _not_these_weights(path) from error
    return lambda pictures: network(pictures)[0]


def load_lpips(trunk: str, path: Path, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Load the code of Zhang et al. 2018, version 0.1; its linear weights come with the package.

    trunk: "alex" or "vgg"; path: torchvision's weights of that network.
    """
    try:
        import lpips
    except ImportError:
        raise _package_missing("lpips", "lpips") from None
    weights = _read_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision, about how lpips calls it
        network = lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
    try:  # `slice2.3.weight` is torchvision's `features.3.weight`
        network.net.load_state_dict(
            {
                name: weights[f"features.{name.partition('.')[2]}"]
                for name in network.net.state_dict()
            }
        )
    except (RuntimeError, KeyError) as error:
        raise _not_these_weights(path) from error
    network.to(device).eval()
    return lambda rgb, truth: network(rgb, truth, normalize=True).flatten()


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # of zip, pickle and torch: whatever is wrong with the file
        raise _not_these_weights(path) from error


def describe(path: Path) -> str:
    """Return name and checksum of a file of weights, and whether it is the published one."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    published = digest[:8] in path.name
    return f"{path.name}, SHA-256 {digest[:8]}…{'' if published else ', NOT the published file'}"


def _not_these_weights(path: Path) -> UserError:
    return UserError(f"{path} is damaged, or of another network; bring it again")


def _package_missing(metric: str, package: str) -> UserError:
    return UserError(
        f"--metrics {metric}: the package {package} is missing; install what such metrics need "
        "with: pip install -e '.[metrics]'"
    )


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
        for kernel in (cubic_kernel(x, x), cubic_kernel(y, y))
    )
    return float(within - 2 * cubic_kernel(x, y).mean())


def cubic_kernel(x: NDArray, y: NDArray) -> NDArray:
    """Return (x·y / D + 1)³ of every row of x [N, D] with every row of y [M, D]: [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3
