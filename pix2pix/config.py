"""`TrainConfig`: the settings of a training, frozen and validated; from flags and file, to JSON."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pix2pix.cli.options import enumerate_words, flags_of, option
from pix2pix.config_checks import check_values
from pix2pix.errors import UserError
from pix2pix.version import __version__

DEFAULT_EPOCHS = 25

# A run resumes only with the same values of these fields: they decide which photographs a step
# sees, and how it trains on them. (The content of the shards must match, too, by their manifest.)
# Other fields may change: paths; how often something is logged or saved; the length of the run, of
# which decay_start is a fraction; and what depends on the machine, because a run may move to other
# GPUs: precision, compile, num_workers, gradient_compression, and grad_accumulation_steps, although
# with BatchNorm that changes the numbers, as the number of ranks does. init_from acts once,
# before step 0.
# Each field has its first value here, which never changes, even if the default does. It is the
# value of runs that began before the field existed, and the hash of a configuration leaves it out.
IDENTITY_FIELDS: dict[str, Any] = {
    "seed": 0,
    "image_size": 256,
    "global_batch": 16,
    "window_shards": 16,
    "color_space": "lab",
    "norm": "batch",
    "dropout": True,
    "generator_width": 64,
    "encoder": "none",
    "encoder_scale": 1,
    "encoder_rate": 1.0,
    "encoder_frozen_steps": 0,
    "discriminator_width": 64,
    "gan_loss": "bce",
    "l1_weight": 100.0,
    "learning_rate": 2e-4,
    "beta1": 0.5,
    "warmup_steps": 0,
    "ema_decay": 0.999,
}


class Differences(NamedTuple):
    """The fields in which two configurations differ: name → (this value, other value)."""

    identity: dict[str, tuple[Any, Any]]
    free: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class TrainConfig:
    """The flags of `scripts/train.py`, one field each.

    Raises:
        UserError: a value is out of range, or two values contradict each other.
    """

    shards: tuple[str, ...] = option(
        help="folders or URLs of shards, each with its manifest",
        metavar="DIR|URL",
        group="run",
        many="words",
    )
    run_dir: Path = option(help="folder of the run, new or to resume", metavar="DIR")
    init_from: Path | None = option(None, help="run whose weights to start from", metavar="DIR")
    seed: int = option(0, help="seed of order, weights and dropout")
    time_limit_minutes: float | None = option(
        None, help="save and stop after this time", unit="minutes"
    )
    collective_timeout_minutes: float = option(
        10.0, help="longest wait for another process", unit="minutes"
    )
    max_skipped_steps: int = option(20, help="limit of non-finite steps in a row", unit="steps")

    image_size: int = option(256, help="side: 64, 128, 256 or 512", unit="pixels", group="data")
    global_batch: int = option(16, help="samples per step, over all ranks", unit="samples")
    window_shards: int = option(16, help="number of shards mixed at a time", unit="shards")
    shard_weights: tuple[int, ...] | None = option(
        None, help="how often each of --shards is seen in an epoch; none: once"
    )
    shards_cache: str | None = option(
        None,
        help="folder of each node that shards are copied to; none: URLs only, to "
        "$PIX2PIX_CACHE, $SLURM_TMPDIR or the temporary folder",
        metavar="DIR",
    )
    shards_cache_gib: float | None = option(
        None, help="largest size of that folder; none: 80 % of what is free", unit="GiB"
    )
    num_workers: int | None = option(
        None, help="loaders per rank; none: by cores", unit="processes"
    )

    color_space: Literal["lab", "rgb"] = option(
        "lab", help="lab predicts chroma, rgb color", group="networks"
    )
    norm: Literal["batch", "instance", "sync_batch"] = option("batch", help="normalization layers")
    dropout: bool = option(True, help="dropout in the generator")
    generator_width: int = option(64, help="channels of its outermost level", unit="channels")
    encoder: str = option(
        "none",
        help="backbone of timm for the generator, such as efficientnet_lite0",
        metavar="NAME",
    )
    encoder_weights: str = option(
        "auto", help="auto: a package's or the hub's; hub, none, or a file", metavar="SOURCE"
    )
    encoder_scale: int = option(1, help="it sees pictures so many times as large", metavar="FACTOR")
    encoder_rate: float = option(1.0, help="of the encoder, times learning_rate")
    encoder_frozen_steps: int = option(0, help="the encoder keeps its weights", unit="steps")
    encoder_recompute: bool = option(
        False, help="of the encoder's activations in backward: less memory, slower"
    )
    discriminator_width: int = option(64, help="channels of its first layer", unit="channels")

    total_steps: int | None = option(
        None, help="length of the run", unit="steps", group="optimization"
    )
    epochs: int | None = option(
        None, help=f"the same; {DEFAULT_EPOCHS} if neither is given", unit="epochs"
    )
    learning_rate: float = option(2e-4, help="of Adam, for both networks")
    warmup_steps: int = option(0, help="initial rise of the learning rate", unit="steps")
    decay_start: float = option(
        0.5,
        help="fraction of the run after which the learning rate decays to zero; 1: never",
        metavar="FRACTION",
    )
    beta1: float = option(0.5, help="beta1 of Adam; beta2 is 0.999")
    l1_weight: float = option(100.0, help="weight of L1 beside the GAN loss")
    gan_loss: Literal["bce", "least_squares", "hinge"] = option("bce", help="adversarial loss")
    ema_decay: float = option(0.999, help="decay of the average; 0: none")
    precision: Literal["no", "fp16", "bf16"] | None = option(
        None, help="none: bf16 if the device has it, else fp16 on a GPU, no (fp32) on a CPU"
    )
    grad_accumulation_steps: int = option(
        1, help="splits a rank's batch, saves memory", unit="micro-batches"
    )
    gradient_compression: Literal["none", "bf16"] = option(
        "none", help="bf16: half the bytes between ranks, rounded"
    )
    compile: bool = option(False, help="torch.compile: slow start, then faster")

    log_every: int = option(
        10, help="steps between metrics", unit="steps", group="cadence (0: only at the end)"
    )
    sample_every: int = option(500, help="steps between sample pictures", unit="steps")
    evaluate_every: int = option(1000, help="steps between evaluations", unit="steps")
    checkpoint_every: int = option(500, help="steps between checkpoints", unit="steps")
    keep_checkpoints: int = option(3, help="number of newest ones to keep", unit="checkpoints")
    profile: int = option(0, help="steps to trace, soon after the start; 0: none", unit="steps")

    def __post_init__(self) -> None:
        check_values(vars(self), flags_of(type(self)))

    def batch_per_rank(self, world_size: int) -> int:
        """Return the number of samples of one micro-batch on one rank.

        Raises:
            UserError: the global batch does not divide evenly.
        """
        divisor = world_size * self.grad_accumulation_steps
        batch, rest = divmod(self.global_batch, divisor)
        if not rest:
            return batch
        ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
        if self.grad_accumulation_steps > 1:
            ranks += f" × {self.grad_accumulation_steps} micro-batches"
        near = [multiple * divisor for multiple in (batch, batch + 1) if multiple]
        raise UserError(
            f"global_batch {self.global_batch} does not divide by {ranks}; "
            f"use {enumerate_words(near, 'or')}"
        )

    def resolve(self, num_samples: int) -> "TrainConfig":
        """Return this configuration with `total_steps` for a train split of `num_samples`.

        The last step may reach into the next epoch: an epoch need not be a whole number of steps.

        Raises:
            UserError: the split has fewer samples than one global batch.
        """
        if num_samples < self.global_batch:
            raise UserError(
                f"the train split has {num_samples} samples, fewer than one global batch of "
                f"{self.global_batch}; lower --global_batch or add photographs"
            )
        if self.total_steps is not None:
            return self
        num_seen = (self.epochs or DEFAULT_EPOCHS) * num_samples
        total_steps = -(-num_seen // self.global_batch)  # rounded up
        return dataclasses.replace(self, total_steps=total_steps, epochs=None)

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of step 0 … total_steps − 1: warm-up, constant, linear decay.

        Constant, then linear to zero, is the schedule of the published PyTorch pix2pix (by epoch
        there).
        """
        assert self.total_steps is not None, "resolve() first"
        warmup = (step + 1) / max(1, self.warmup_steps)
        decay_steps = (1 - self.decay_start) * self.total_steps
        decay = (self.total_steps - step) / decay_steps if decay_steps else 1.0
        return self.learning_rate * min(1.0, warmup, decay)

    def encoder_learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a pretrained encoder in step 0 … total_steps − 1."""
        frozen = step < self.encoder_frozen_steps
        return 0.0 if frozen else self.encoder_rate * self.learning_rate_at(step)

    def ema_decay_at(self, step: int) -> float:
        """Return the decay of the generator's moving average after step `step`.

        It rises to `ema_decay`, so that the average of a short run does not contain its initial
        weights: the `num_updates` ramp of TensorFlow's ExponentialMovingAverage.
        """
        return min(self.ema_decay, (1 + step) / (10 + step))

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Return the configuration that `to_json` wrote.

        A field that did not exist then has its first value.

        Raises:
            UserError: it was written by a version with other fields.
        """
        flags = flags_of(cls)
        foreign = [name for name in values if name not in flags]
        foreign += [name for name, flag in flags.items() if flag.required and name not in values]
        if foreign:
            raise UserError(
                f"the saved configuration does not fit pix2pix {__version__}, see "
                f"{enumerate_words(foreign, 'and')}; use the version that saved it"
            )
        typed: dict[str, Any] = IDENTITY_FIELDS | dict(values)
        for name, value in values.items():
            if flags[name].kind is Path and value is not None:
                typed[name] = Path(value)
            if isinstance(value, list):
                typed[name] = tuple(value)
        if isinstance(values["shards"], str):  # an earlier version had one folder
            typed["shards"] = (values["shards"],)
        return cls(**typed)

    def identity(self) -> dict[str, Any]:
        """Return the fields that must not change while the run directory exists."""
        return {name: getattr(self, name) for name in IDENTITY_FIELDS}

    def differences(self, other: "TrainConfig") -> Differences:
        """Return the fields that differ from `other`, by whether a run may change them."""
        pairs = {name: (value, getattr(other, name)) for name, value in vars(self).items()}
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return Differences(
            identity={name: differing[name] for name in IDENTITY_FIELDS if name in differing},
            free={name: differing[name] for name in differing if name not in IDENTITY_FIELDS},
        )
