"""The run directory: the paths of one training, and the identity of the training."""

import json
import platform
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from pix2pix.config import IDENTITY_FIELDS, TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.claim import FOLDER
from pix2pix.system.durable import publish_json

PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "pillow")


class RunDirectory:
    """Paths of a run, and the configuration in its `config.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / "config.json"
        self.metrics_file = root / "metrics.jsonl"
        self.checkpoints = root / "checkpoints"
        self.tensorboard = root / "tensorboard"
        self.samples = root / "samples"
        self.profile = root / "profile"
        self.encoder_file = root / "encoder.json"  # whose weights a pretrained encoder began with
        # Written by slurm.submit, before the training claims the directory.
        self.snapshots = root / "snapshots"
        self.jobs = root / "slurm"

    def read_config(self) -> TrainConfig:
        """Return the configuration of the run; raise UserError if there is none."""
        return self._read()[0]

    def shards_digest(self) -> str:
        """Return the identity of the train split's content; raise UserError if there is no run."""
        return self._read()[1]

    def config_hash(self) -> str:
        """Return the identity of the training; raise UserError if there is no run."""
        return config_hash(*self._read())

    def claim(self, config: TrainConfig, shards_digest: str) -> list[str]:
        """Assign the directory to this training, or continue in it. Call it on one rank.

        Args:
            config: with `total_steps` resolved.
            shards_digest: identity of the train split's content.

        Returns:
            One line for each change since the last start.

        Raises:
            UserError: the directory belongs to a training of another identity that has begun, or
                is not writable.
        """
        changes = self.check(config, shards_digest)
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

    def check(self, config: TrainConfig, shards_digest: str) -> list[str]:
        """Return or raise what `claim` would, without writing."""
        if self.config_file.exists():
            return self._compare(config, shards_digest)
        submitted = {self.snapshots, self.jobs}
        files = self.root.iterdir() if self.root.exists() else ()
        if any(file not in submitted and not _is_claim(file) for file in files):
            raise UserError(
                f"{self.root} has files but no config.json, so it is not a run directory; "
                "choose another --run_dir"
            )
        return []

    def encoder_facts(self) -> dict[str, str]:
        """Return source, origin, sha256 and license of the weights that the encoder began with.

        Empty where it began without any.
        """
        try:
            return dict(json.loads(self.encoder_file.read_bytes()))
        except (OSError, ValueError):
            return {}

    def newest_step(self) -> int:
        """Return the step of the newest checkpoint, or 0 if there is none."""
        names = (path.name.removeprefix("step_") for path in self.checkpoints.glob("step_*"))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def _has_begun(self) -> bool:
        """Return True if there is something to lose: a checkpoint, damaged or not, or metrics."""
        logged = self.metrics_file.exists() and self.metrics_file.stat().st_size > 0
        return logged or any(self.checkpoints.glob("step_*"))

    def _read(self) -> tuple[TrainConfig, str]:
        """Return the configuration and the digest of the shards that `claim` wrote."""
        try:
            content = json.loads(self.config_file.read_text())
            fields, digest = dict(content["config"]), str(content["shards_digest"])
        except FileNotFoundError:
            raise UserError(f"{self.root} is not a run directory (no config.json in it)") from None
        except OSError as error:
            raise UserError(f"can't read {self.config_file}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{self.config_file} is damaged, or not from a run; copy it from another run of "
                "the same configuration, or choose another --run_dir"
            ) from error
        return TrainConfig.from_json(fields), digest

    def _compare(self, config: TrainConfig, shards_digest: str) -> list[str]:
        theirs, their_digest = self._read()
        identity, free = config.differences(theirs)
        rows = [f"{name}: {old!r} there, {new!r} here" for name, (new, old) in identity.items()]
        if their_digest != shards_digest:
            rows.append("shards: " + _other_shards(their_digest, shards_digest))
        if rows and not self._has_begun():  # a failed start must not restrict the next one
            return ["everything: no step was trained here yet"]
        if rows:
            raise UserError(
                f"{self.root} belongs to another training ({'; '.join(rows)}); "
                "choose another --run_dir, with --init_from "
                f"{self.root} to start from its weights, or give the same values to resume"
            )
        free.pop("run_dir", None)  # a run may be moved
        return [f"{name}: {old} → {new}" for name, (new, old) in free.items()]


def config_hash(config: TrainConfig, shards_digest: str) -> str:
    """Return the identity of a training, 16 hex digits, which its checkpoints contain.

    Fields with their first value are left out. So a field that a later version adds does not change
    the hash, and neither does a new default.
    """
    chosen = {name: v for name, v in config.identity().items() if v != IDENTITY_FIELDS[name]}
    numbers = {n: float(v) if isinstance(v, int) else v for n, v in chosen.items()}  # 10 is 10.0
    text = json.dumps([numbers, shards_digest], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def _other_shards(theirs: str, mine: str) -> str:
    """Return what differs between two identities of data sets (`data.shards.identity_of`)."""
    old, new = theirs.split(), mine.split()
    if {digest.partition("*")[0] for digest in old} < {digest.partition("*")[0] for digest in new}:
        return "data sets were added"
    if [digest.partition("*")[0] for digest in old] == [d.partition("*")[0] for d in new]:
        return "their weights differ"
    return "the train split has other photographs"


def _is_claim(path: Path) -> bool:
    return path.name.startswith(FOLDER)  # of this start, which acquires the claim first


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect numbers."""
    found: dict[str, str] = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in PACKAGES}
