"""`Generator`: a trained generator without its run, in a folder or on the Hugging Face hub.

The folder holds model.safetensors (the weights), config.json (the settings of the network, and the
checksum of the weights) and README.md (the model card). Nothing is unpickled, so a model from
another source cannot run code.
"""

import json
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import HfApi, ModelHubMixin, constants, snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError
from torch import nn

from pix2pix.errors import UserError
from pix2pix.model.color import ColorSpace
from pix2pix.model.encoder import EncoderGenerator
from pix2pix.model.networks import UNetGenerator
from pix2pix.version import __version__

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
FILES = (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE)
TIMEOUT_SECONDS = 10.0

SETTINGS = ("color_space", "image_size", "width", "norm", "dropout")
# More settings, of networks on a backbone of timm; the first exports have no scale.
ENCODER, ENCODER_SCALE = "encoder", "encoder_scale"

LIBRARY = "pix2pix"
PIPELINE = "image-to-image"  # the hub's name for the task
TAGS = ["colorization", "pix2pix"]


class Exported(nn.Module, ModelHubMixin):
    """A generator with its color space, in a folder or on the hub: what all kinds share.

    Attributes:
        color_space: in which it paints.
        image_size: at which it was trained, in pixels.
        config: the arguments that build the network again.
        card: the text of the model card, saved and loaded with the weights.
    """

    color_space: ColorSpace
    image_size: int
    config: dict[str, Any]
    card: str | None

    def describe(self, config: dict[str, Any]) -> None:
        """Store the arguments that the network was built with."""
        self.color_space = ColorSpace(config["color_space"])
        self.image_size = config["image_size"]
        self.config = config
        self.card = None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> "Exported":
        """Load a folder, or "owner/name" from the hub, on the CPU in evaluation mode.

        This replaces the mixin's method, which would also unpickle, and accept a file that lacks
        weights.

        Args:
            source: the folder, or the name on the hub.
            revision: as in `huggingface_hub.snapshot_download`.
            token: as there.
            cache_dir: as there.

        Raises:
            UserError: there is no such model, or it is damaged.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = _download(str(source), revision, token, cache_dir)
        config, weights = _read(folder)
        try:
            with torch.device("meta"):  # no initial weights: they would be overwritten
                generator = class_of(config)(**config)
            generator.load_state_dict(safetensors.torch.load(weights), assign=True)
        except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder / WEIGHTS_FILE} does not hold the network that {CONFIG_FILE} describes; "
                "export it again"
            ) from error
        if (folder / CARD_FILE).exists():
            generator.card = (folder / CARD_FILE).read_text(encoding="utf-8")
        return generator.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write all files of the folder (a hook of the mixin, which adds a missing card)."""
        weights = safetensors.torch.save(
            {name: value.cpu().contiguous() for name, value in self.state_dict().items()},
            metadata={"format": "pt"},
        )
        config = {
            "pix2pix_version": __version__,
            **self.config,
            "weights_sha256": sha256(weights).hexdigest(),
        }
        (save_directory / WEIGHTS_FILE).write_bytes(weights)
        (save_directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        if self.card is not None:
            (save_directory / CARD_FILE).write_text(self.card, encoding="utf-8")


class Generator(UNetGenerator, Exported, library_name=LIBRARY, pipeline_tag=PIPELINE, tags=[*TAGS]):
    """The U-Net with its color space. `Colorizer.from_path` colors with it.

    `save_pretrained(folder)` and `push_to_hub("owner/name")` come from huggingface_hub's mixin. The
    arguments are those of TrainConfig and UNetGenerator. `from_pretrained` returns the kind of
    network that was exported, a `PretrainedGenerator` where it has an encoder.
    """

    def __init__(
        self,
        color_space: str = "lab",
        image_size: int = 256,
        width: int = 64,
        norm: str = "batch",
        dropout: bool = True,
    ):
        space = ColorSpace(color_space)
        super().__init__(
            space.condition_channels, space.output_channels, image_size, width, norm, dropout
        )
        values = (color_space, image_size, width, norm, dropout)
        self.describe(dict(zip(SETTINGS, values, strict=True)))


class PretrainedGenerator(
    EncoderGenerator, Exported, library_name=LIBRARY, pipeline_tag=PIPELINE, tags=[*TAGS]
):
    """A decoder on a backbone of timm, with its color space; otherwise as `Generator`.

    encoder: the backbone. Raises UserError where timm is missing.
    """

    def __init__(
        self,
        color_space: str,
        image_size: int,
        width: int,
        norm: str,
        dropout: bool,
        encoder: str,
        encoder_scale: int = 1,
    ) -> None:
        space = ColorSpace(color_space)
        channels = (space.condition_channels, space.output_channels)
        super().__init__(*channels, encoder, image_size, width, norm, dropout, encoder_scale)
        values = (color_space, image_size, width, norm, dropout)
        backbone = {ENCODER: encoder, ENCODER_SCALE: encoder_scale}
        self.describe(dict(zip(SETTINGS, values, strict=True)) | backbone)


def class_of(config: Mapping[str, Any]) -> type[Exported]:
    """Return the class that these arguments are of."""
    return PretrainedGenerator if ENCODER in config else Generator


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return the arguments of the network in `folder`, and the bytes of its weights file."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} holds neither a run (no checkpoints) nor an exported model (no {name})"
            )
    try:
        config = dict(json.loads((folder / CONFIG_FILE).read_bytes()))
        version, checksum = config.pop("pix2pix_version"), config.pop("weights_sha256")
        weights = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise UserError(f"can't read {error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / CONFIG_FILE} is damaged, or of another program; export the run again"
        ) from error
    if config.keys() - {ENCODER, ENCODER_SCALE} != set(SETTINGS):
        raise UserError(
            f"{folder} was exported by pix2pix {version}, which had other settings than this "
            f"{__version__}; use that version, or export the run again"
        )
    if sha256(weights).hexdigest() != checksum:
        raise UserError(
            f"{folder / WEIGHTS_FILE} is damaged: its checksum differs; export or download it again"
        )
    return config, weights


def _download(
    name: str, revision: str | None, token: str | None, cache_dir: str | Path | None
) -> Path:
    """Return the folder in the local cache with the current version of the model `name`.

    If the hub cannot be reached, use the version that was downloaded before.
    """
    if Path(name).exists():
        raise UserError(f"{name} is a file; give the folder that contains it")
    absent = f"there is no folder {name}"
    host = constants.ENDPOINT
    if name.count("/") != 1:  # otherwise the hub would be asked for every misspelt folder
        raise UserError(f"{absent}; a model on the hub is written owner/name")
    fetch = partial(  # a snapshot: all files have one revision
        snapshot_download,
        name,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        allow_patterns=list(FILES),
    )
    try:
        # Asked first, because snapshot_download would wait forever for a silent server.
        HfApi(token=token).model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
        return Path(fetch())
    except HFValidationError:
        raise UserError(f"{absent}, and no model can have that name on the hub") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{absent}, and {host} shows you no model of that name; if it is private, run "
            "`hf auth login` first"
        ) from None
    except Exception as error:  # an error of the disk, or of the network library in use
        try:
            return Path(fetch(local_files_only=True))
        except OSError:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{absent}, and {host} can't be asked for a model of that name: {reason}"
            ) from error
