"""Networks that others have trained and that metrics rest on: Inception for FID and KID, LPIPS.

Their weights are files that you bring: nothing here reaches for a network.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pix2pix.errors import UserError

INCEPTION_FEATURES = 2048


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
    """

    features: Callable[[Tensor], Tensor] | None
    distances: dict[str, Callable[[Tensor, Tensor], Tensor]]
    weights: dict[str, str]


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
        weights={metric: _describe(path) for metric, path in found.items()},
    )


def find_weights(metric: str, folder: Path | None) -> Path:
    """The file with the weights that `metric` needs. Raises UserError where it isn't there."""
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
    """The code of Zhang et al. 2018, version 0.1; its linear weights come with the package.

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


def _describe(path: Path) -> str:
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
