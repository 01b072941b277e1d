"""The run directory: where everything of one training lies, and whose training it is."""

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
    """Paths of a run, and the configuration that its `config.json` holds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / "config.json"
        self.metrics_file = root / "metrics.jsonl"
        self.checkpoints = root / "checkpoints"
        self.tensorboard = root / "tensorboard"
        self.samples = root / "samples"
        self.profile = root / "profile"
        # Written by slurm.submit, before the training claims the directory.
        self.snapshots = root / "snapshots"
        self.jobs = root / "slurm"

    def read_config(self) -> TrainConfig:
        """The configuration of the run. Raises UserError where there is none."""
        return self._read()[0]

    def shards_digest(self) -> str:
        """Identity of the train split's content. Raises UserError where there is no run."""
        return self._read()[1]

    def config_hash(self) -> str:
        """Whose training this is. Raises UserError where there is none."""
        return config_hash(*self._read())

    def claim(self, config: TrainConfig, shards_digest: str) -> list[str]:
        """Make the directory this training's, or go on in it; call it on one rank.

        config: resolved; shards_digest: identity of the train split's content.
        Returns what changed since the last start, a line each. Raises UserError where the
        directory belongs to a training of another identity that has begun, or can't be written.
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
        """What `claim` would return or raise, as far as reading tells."""
        if self.config_file.exists():
            return self._compare(config, shards_digest)
        submitted = {self.snapshots, self.jobs}
        files = self.root.iterdir() if self.root.exists() else ()
        if any(file not in submitted and not _is_claim(file) for file in files):
            raise UserError(
                f"{self.root} has files but no config.json, so it is no run directory; "
                "choose another --run_dir"
            )
        return []

    def newest_step(self) -> int:
        """Step of the newest checkpoint that is there, 0 without one."""
        names = (path.name.removeprefix("step_") for path in self.checkpoints.glob("step_*"))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def _has_begun(self) -> bool:
        """Whether there is something to lose: a checkpoint, damaged or not, or metrics."""
        logged = self.metrics_file.exists() and self.metrics_file.stat().st_size > 0
        return logged or any(self.checkpoints.glob("step_*"))

    def _read(self) -> tuple[TrainConfig, str]:
        """The configuration and the digest of the shards that `claim` wrote."""
        try:
            content = json.loads(self.config_file.read_text())
            fields, digest = dict(content["config"]), str(content["shards_digest"])
        except FileNotFoundError:
            raise UserError(f"{self.root} is no run directory (no config.json in it)") from None
        except OSError as error:
            raise UserError(f"can't read {self.config_file}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{self.config_file} is damaged, or no run's; copy it from another run of the same "
                "configuration, or choose another --run_dir"
            ) from error
        return TrainConfig.from_json(fields), digest

    def _compare(self, config: TrainConfig, shards_digest: str) -> list[str]:
        theirs, their_digest = self._read()
        identity, free = config.differences(theirs)
        rows = [f"{name}: {old!r} there, {new!r} here" for name, (new, old) in identity.items()]
        if their_digest != shards_digest:
            rows.append("shards: " + _other_shards(their_digest, shards_digest))
        if rows and not self._has_begun():  # a start that failed must not bind the next one
            return ["everything: no step was trained here yet"]
        if rows:
            raise UserError(
                f"{self.root} belongs to another training ({'; '.join(rows)}); "
                "choose another --run_dir, with --init_from "
                f"{self.root} to start from its weights, or give the same values to go on"
            )
        free.pop("run_dir", None)  # a run may be moved
        return [f"{name}: {old} → {new}" for name, (new, old) in free.items()]


def config_hash(config: TrainConfig, shards_digest: str) -> str:
    """The identity of a training, 16 hex digits: what a checkpoint says whose it is.

    Fields at their first value are left out, so that neither one that a later version adds nor
    another default changes a hash.
    """
    chosen = {name: v for name, v in config.identity().items() if v != IDENTITY_FIELDS[name]}
    numbers = {n: float(v) if isinstance(v, int) else v for n, v in chosen.items()}  # 10 is 10.0
    text = json.dumps([numbers, shards_digest], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def _other_shards(theirs: str, mine: str) -> str:
    """What differs between two identities of data sets (`data.shards.identity_of`)."""
    old, new = theirs.split(), mine.split()
    if {digest.partition("*")[0] for digest in old} < {digest.partition("*")[0] for digest in new}:
        return "data sets were added"
    if [digest.partition("*")[0] for digest in old] == [d.partition("*")[0] for d in new]:
        return "their weights are others"
    return "the photographs in the train split are others"


def _is_claim(path: Path) -> bool:
    return path.name.startswith(FOLDER)  # of this very start: the right to write comes first


def versions() -> dict[str, str]:
    """Python and the packages that decide about numbers."""
    found: dict[str, str] = {"python": platform.python_version()}
    return found | {name: metadata.version(name) for name in PACKAGES}
