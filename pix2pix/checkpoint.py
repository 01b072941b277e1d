"""Sharded, atomic, asynchronous checkpoints: every rank writes its share, any world size reads it.

A checkpoint is written aside and gets its name, step_000001000, only when every byte and its
state.json are durable. So what has the name is complete, and training goes on meanwhile.
"""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter

from pix2pix.config import TrainConfig
from pix2pix.distributed import Distributed
from pix2pix.durable import flush, publish_json
from pix2pix.errors import UserError
from pix2pix.run_directory import RunDirectory, versions
from pix2pix.state import TrainState, build_generator

# A single process is no mistake. The save runs in a thread of torch's, so no context would do.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")

STATE_FILE = "state.json"
NETWORK_FIELDS = ("color_space", "image_size", "norm", "generator_width", "discriminator_width")


class Checkpointer:
    """Saves and restores a TrainState under `root`; every rank calls every method.

    keep: how many of the newest checkpoints stay; an older one is deleted only after a newer one
        is durable.
    """

    def __init__(self, root: Path, keep: int, distributed: Distributed) -> None:
        self.root = root
        self.keep = keep
        self.distributed = distributed
        # Its own group: the save communicates from a thread while the training goes on.
        self._group = distributed.cpu_group()
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        distributed.on_main(self._clean_up)

    def save(self, state: TrainState, samples_seen: int) -> None:
        """Start to save `state`; it may change again when this returns (a copy is being written).

        Waits for the save before it: two at once would mix their messages. Raises UserError where
        that one failed.
        """
        self.wait()
        self.distributed.use_main_buffers(state.generator)
        if state.generator_average is not None:
            self.distributed.use_main_buffers(state.generator_average)
        final = self.root / f"step_{state.step:09d}"
        partial = self.root / f".{final.name}.partial"
        facts = {
            "step": state.step,
            "samples_seen": samples_seen,
            "world_size": self.distributed.world_size,
            "versions": versions(),
        }
        written: Any = dcp.async_save(
            state.state_dict(),
            storage_writer=FileSystemWriter(partial),
            process_group=self._group,
            no_dist=self._group is None,
        )
        self._pending = self._publisher.submit(self._publish, written, partial, final, facts)

    def wait(self) -> None:
        """Wait until the save under way is durable.

        Raises UserError, on every rank, where it failed on any.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        error = None
        try:
            pending.result()
        except (OSError, CheckpointException) as failure:
            error = (
                f"could not save a checkpoint in {self.root}: {_reason(failure)}; the one before "
                "it is untouched. Make room there and run the same command again"
            )
        self.distributed.raise_together(error)

    def newest(self) -> Path | None:
        """The newest complete checkpoint; None in a new run.

        Raises UserError where there are checkpoints but none is complete: starting again from
        zero must be the user's own decision.
        """
        return self.distributed.on_main(self._find_newest)

    def restore(self, path: Path, state: TrainState) -> None:
        """Load the checkpoint at `path` into `state`, on any number of ranks."""
        values = state.state_dict()
        dcp.load(
            values,
            storage_reader=FileSystemReader(path),
            process_group=self._group,
            no_dist=self._group is None,
        )
        state.load_state_dict(values)
        state.step = json.loads((path / STATE_FILE).read_text())["step"]

    def _find_newest(self) -> Path | None:
        complete = complete_checkpoints(self.root)
        if not complete and any(self.root.glob("step_*")):
            raise UserError(
                f"no checkpoint in {self.root} is complete; restore one from a copy, or remove "
                "the folder to start again from step 0"
            )
        for path in sorted(self.root.glob("step_*")):
            if path not in complete:
                print(f"ignoring {path.name}: it is incomplete")
        return complete[0] if complete else None

    def _publish(self, written: Any, partial: Path, final: Path, facts: dict[str, Any]) -> None:
        written.result()  # on rank 0: every rank has written, and .metadata is there
        if not self.distributed.is_main:
            return
        sizes = {path.name: path.stat().st_size for path in sorted(partial.glob("*.distcp"))}
        publish_json(partial / STATE_FILE, facts | {"bytes": sizes})
        if final.exists():  # one that was damaged: a complete one would have been resumed from
            shutil.rmtree(final)
        partial.rename(final)
        flush(self.root)
        for old in complete_checkpoints(self.root)[self.keep :]:
            shutil.rmtree(old)

    def _clean_up(self) -> None:
        """Remove what a killed run left half written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for partial in self.root.glob(".step_*.partial"):
                print(f"removing {partial.name}: its save was cut short")
                shutil.rmtree(partial)
        except OSError as error:
            raise UserError(f"can't write to {self.root}: {error.strerror}") from error


def complete_checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints under `root`, newest first."""
    return [path for path in sorted(root.glob("step_*"), reverse=True) if _is_complete(path)]


def newest_checkpoint(run_dir: Path) -> Path:
    """The newest complete checkpoint of a run. Raises UserError where there is none."""
    run = RunDirectory(run_dir)
    run.read_config()
    checkpoints = complete_checkpoints(run.checkpoints)
    if not checkpoints:
        raise UserError(f"{run_dir} has no checkpoint yet; train it first, or a little longer")
    return checkpoints[0]


def load_generator(run_dir: Path, path: Path) -> tuple[nn.Module, TrainConfig, int]:
    """The best generator of a run's checkpoint `path`, on the CPU; its configuration and step.

    The averaged weights where the run averages.
    """
    config = RunDirectory(run_dir).read_config()
    generator = build_generator(config)
    name = "generator_average" if config.ema_decay > 0 else "generator"
    _read_into({name: generator.state_dict()}, path)
    step = json.loads((path / STATE_FILE).read_text())["step"]
    return generator.eval(), config, step


def restore_networks(run_dir: Path, config: TrainConfig, state: TrainState) -> Path:
    """Load the networks' weights of another run into `state`: the start of a new training.

    Returns the checkpoint that was read. Raises UserError where the networks differ.
    """
    theirs, path = RunDirectory(run_dir).read_config(), newest_checkpoint(run_dir)
    for name in NETWORK_FIELDS:
        if getattr(theirs, name) != getattr(config, name):
            raise UserError(
                f"init_from {run_dir} has {name} {getattr(theirs, name)!r}, this training "
                f"{getattr(config, name)!r}; networks must be alike"
            )
    values = {name: network.state_dict() for name, network in state.networks().items()}
    average = values.pop("generator_average", None)
    if average is not None and theirs.ema_decay > 0:
        values["generator_average"] = average
    _read_into(values, path)
    if average is not None and theirs.ema_decay == 0:
        for mine, read in zip(average.values(), values["generator"].values(), strict=True):
            mine.copy_(read)
    return path


def _read_into(values: dict[str, Any], path: Path) -> None:
    """Fill the tensors of `values`, in place, in this process alone."""
    dcp.load(values, storage_reader=FileSystemReader(path), no_dist=True)


def _is_complete(path: Path) -> bool:
    try:
        sizes: Mapping[str, int] = json.loads((path / STATE_FILE).read_text())["bytes"]
        return (path / ".metadata").exists() and all(
            (path / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError):
        return False


def _reason(error: BaseException) -> str:
    """The first cause in one line; DCP wraps each rank's error and traceback."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).splitlines()[0]
