"""The run directory: where everything of one training lies, and whose training it is."""

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from pix2pix.config import TrainConfig
from pix2pix.durable import publish_json
from pix2pix.errors import UserError

PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "pillow")


class RunDirectory:
    """Paths of a run, and the configuration that its `config.json` holds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / "config.json"
        self.metrics_file = root / "metrics.jsonl"
        self.checkpoints = root / "checkpoints"
        self.tensorboard = root / "tensorboard"
        self.samples = root / "samples"

    def read_config(self) -> TrainConfig:
        """The configuration of the run. Raises UserError where there is none."""
        return TrainConfig.from_json(self._read()["config"])

    def claim(self, config: TrainConfig, shards_digest: str) -> list[str]:
        """Make the directory this training's, or go on in it; call it on one rank.

        config: resolved; shards_digest: identity of the train split's content.
        Returns what changed since the last start, a line each. Raises UserError where the
        directory belongs to a training of another identity, or can't be written.
        """
        changes: list[str] = []
        if self.config_file.exists():
            changes = self._compare(config, shards_digest)
        elif self.root.exists() and any(self.root.iterdir()):
            raise UserError(
                f"{self.root} has files but no config.json, so it is no run directory; "
                "choose another --run_dir"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            content = {
                "config": config.to_json(),
                "shards_digest": shards_digest,
                "versions": versions(),
            }
            publish_json(self.config_file, content)
        except OSError as error:
            raise UserError(f"can't write to run_dir {self.root}: {error.strerror}") from error
        return changes

    def _read(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.config_file.read_text())
        except FileNotFoundError:
            raise UserError(f"{self.root} is no run directory (no config.json in it)") from None
        except (OSError, ValueError) as error:
            raise UserError(f"can't read {self.config_file}: {error}") from error
        return content

    def _compare(self, config: TrainConfig, shards_digest: str) -> list[str]:
        content = self._read()
        theirs = TrainConfig.from_json(content["config"])
        identity, free = config.differences(theirs)
        rows = [f"{name}: {old!r} there, {new!r} here" for name, (new, old) in identity.items()]
        if content["shards_digest"] != shards_digest:
            rows.append("shards: the photographs in the train split are others")
        if rows:
            raise UserError(
                f"{self.root} belongs to another training ({'; '.join(rows)}); "
                "choose another --run_dir, or give the same values to go on"
            )
        return [f"{name}: {old!r} → {new!r}" for name, (new, old) in free.items()]


def versions() -> dict[str, str]:
    """Python and the packages that decide about numbers."""
    found: dict[str, str] = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in PACKAGES}
