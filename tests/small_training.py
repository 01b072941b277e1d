"""A training small enough for tests, and what they look at when it is done."""

import os
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.distributed import Distributed
from pix2pix.training.trainer import Trainer


def tiny_config(shards: Path, run_dir: Path, **changes: Any) -> TrainConfig:
    """64 px, 4 channels wide, 4 steps of 6 photographs, fp32, without cadences."""
    values: dict[str, Any] = {
        "image_size": 64,
        "global_batch": 6,
        "total_steps": 4,
        "generator_width": 4,
        "discriminator_width": 4,
        "num_workers": 0,
        "log_every": 1,
        "sample_every": 0,
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "window_shards": 2,
        "precision": "no",  # the default depends on the machine
    }
    return TrainConfig(shards=(str(shards),), run_dir=run_dir, **(values | changes))


def fit(config: TrainConfig, stop_after: int | None = None) -> dict[str, Any]:
    """Train on this rank; what happened, and a digest of every tensor of the state.

    stop_after: this rank gets a SIGTERM in the first step at or after this one.
    """
    trainer = trainer_of(config)
    first_step, keys = trainer.state.step, []
    step = trainer.step

    def watched(micro_batches: Any) -> Any:
        keys.append([key for batch in micro_batches for key in batch.keys])
        if stop_after is not None and trainer.state.step + 1 == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(micro_batches)

    trainer.step = watched  # type: ignore[assignment]
    outcome = trainer.fit()
    digests = tensor_digests({"state": trainer.state.state_dict()})
    trainer.distributed.shutdown()
    return {
        "outcome": outcome.value,
        "first_step": first_step,
        "step": trainer.state.step,
        "keys": keys,
        "digests": digests,
    }


def trainer_of(config: TrainConfig) -> Trainer:
    """This rank's trainer, its state restored; one thread, or tests would crowd each other."""
    return Trainer(config, Distributed(timeout_minutes=1, num_threads=1))


def error_of(work: Callable[[], object]) -> str:
    """The UserError that `work` raises, as a command line would print it."""
    try:
        work()
    except UserError as error:
        return str(error)
    return "no error"


def error_at_start(config: TrainConfig) -> str:
    return error_of(lambda: trainer_of(config))


def tensor_digests(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """SHA-256 of each tensor in nested dicts, by dotted name: equal digests, equal bits."""
    digests: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            digests |= tensor_digests(value, f"{prefix}{name}.")
        elif isinstance(value, torch.Tensor):
            data = value.detach().cpu().contiguous().numpy().tobytes()
            digests[f"{prefix}{name}"] = sha256(data).hexdigest()
    return digests
