"""Sharded, atomic, asynchronous checkpoints: every rank writes its share, any world size reads it.

A checkpoint is written aside while the training continues. It gets its name, step_000001000, only
when all files including state.json are durable, so a checkpoint with that name is complete. It is
read only after its checksums were compared.
"""

import os
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, FileSystemReader, FileSystemWriter

from pix2pix.errors import UserError
from pix2pix.run import checkpoint_files as files
from pix2pix.run.checkpoint_share import Staging, leaves
from pix2pix.run.distributed import Distributed
from pix2pix.run.run_directory import versions
from pix2pix.run.state import TrainState
from pix2pix.system.durable import check_renames, flush

# A single process is intended. A context manager would not reach the thread that saves.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


class Checkpointer:
    """Save and restore a TrainState under `root`. Every rank calls every method.

    Args:
        root: folder of the checkpoints.
        keep: number of newest checkpoints to keep; an older one is deleted only after a newer one
            is durable.
        distributed: the processes of the training.
        config_hash: identity of the training (`run_directory.config_hash`).

    Raises:
        UserError: `root` is not writable.
    """

    def __init__(self, root: Path, keep: int, distributed: Distributed, config_hash: str) -> None:
        self.root = root
        self.keep = keep
        self.distributed = distributed
        self.config_hash = config_hash
        # A separate group: the save communicates from a thread while the training continues.
        self._group = distributed.cpu_group()
        self._staging = Staging()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._unusable: list[Path] = []
        self.durable_step = 0  # of the newest that is whole on the disk
        for line in distributed.run_on_main(self._clean_up):
            distributed.say(line)

    def save(self, state: TrainState, samples_seen: int) -> None:
        """Start to save a copy of `state`, which may change as soon as this returns.

        Wait for the previous save first: two at once would mix their messages.

        Raises:
            UserError: the previous save failed.
        """
        self.wait()
        self.distributed.broadcast_buffers(state.generator)
        if state.ema_generator is not None:
            self.distributed.broadcast_buffers(state.ema_generator)
        facts = {
            "step": state.step,
            "samples_seen": samples_seen,
            "world_size": self.distributed.world_size,
            "config_hash": self.config_hash,
            "versions": versions(),
        }
        rank, world_size = self.distributed.rank, self.distributed.world_size
        share = self._staging.copy(state.state_dict(), rank, world_size)
        self._pending = self._writer.submit(self._write, share, facts)

    def wait(self) -> None:
        """Wait until the current save is durable.

        Raises:
            UserError: on every rank, if the save failed on any rank.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        error = None
        try:
            pending.result()
        except (OSError, CheckpointException) as failure:
            error = (
                f"could not save a checkpoint in {self.root}: {reason_of(failure)}; the previous "
                "one is untouched. Solve the problem and run the same command again"
            )
        self.distributed.raise_on_all_ranks(error)

    def restore(self, state: TrainState) -> Path | None:
        """Load the newest good checkpoint into `state`, on any number of ranks.

        Print each checkpoint that does not verify, with the reason, and try the next.

        Returns:
            The checkpoint that was loaded, or None in a new run.

        Raises:
            UserError: there are checkpoints, but none is good; starting over from zero must be the
                user's decision.
        """
        found = self.distributed.run_on_main(partial(files.checkpoints, self.root))
        for path in found:
            fault = self._verify(path) or self._load(path, state)
            if fault is None:
                self.durable_step = state.step
                return path
            self._unusable.append(path)
            self.distributed.say(f"ignoring {path.name}: {fault}")
        if found:
            raise files.none_is_good(self.root)
        return None

    def _verify(self, path: Path) -> str | None:
        """Return why a checkpoint is bad, or None, the same on all ranks; each reads its part."""
        rank, world_size = self.distributed.rank, self.distributed.world_size
        fault = files.verify(path, self.config_hash, rank, world_size)
        return next(filter(None, self.distributed.all_gather_object(fault)), None)

    def _load(self, path: Path, state: TrainState) -> str | None:
        """Load `path`; return why it is unreadable, or None, the same on all ranks.

        Rank 0 reads it and broadcasts: read by each, 904 MB would come from the file system as
        often as there are ranks (231 GB for 256).
        """
        values = state.state_dict()
        fault = self.distributed.run_on_main(partial(_read_into, values, path))
        if fault is not None:
            return fault
        self._broadcast(values)
        state.load_state_dict(values)
        state.step = files.read_facts(path)["step"]
        return None

    def _broadcast(self, values: dict[str, Any]) -> None:
        """Give every rank rank 0's values, nested and named alike everywhere.

        Tensors on the device are received in their place, everything else in one message.
        """
        if self.distributed.world_size == 1:
            return
        tensors, others = [], {}
        for name, leaf in leaves(values):
            if isinstance(leaf, Tensor) and leaf.device.type == self.distributed.device.type:
                tensors.append(leaf)
            else:
                others[name] = leaf
        for name, leaf in self.distributed.run_on_main(lambda: others).items():
            inner = values
            for key in name[:-1]:
                inner = inner[key]
            inner[name[-1]] = leaf
        self.distributed.broadcast(tensors)

    def _write(self, share: dict[str, Any], facts: dict[str, Any]) -> None:
        """Write this rank's share, and publish the checkpoint on rank 0. Runs in the writer thread.

        Only one thread at a time may use the group: the writer, from `save` to `wait`.
        """
        final = self.root / files.checkpoint_name(facts["step"])
        aside = self.root / f".{final.name}.partial"
        dcp.save(
            share,
            storage_writer=FileSystemWriter(aside),  # flushes every file
            process_group=self._group,
            no_dist=self._group is None,
        )
        sums: files.Sums | OSError
        try:
            flush(aside)
            sums = files.summed([*aside.glob(f"__{self.distributed.rank}_*.distcp")])
        except OSError as error:
            sums = error  # reported to all ranks, which wait in the next collective
        merged: files.Sums = {}
        for result in self.distributed.all_gather_object(sums, self._group):
            if isinstance(result, OSError):
                raise result
            merged |= result
        if self.distributed.is_main:
            merged |= files.summed([aside / files.METADATA_FILE])
            files.publish(aside, final, facts, merged)
            self.durable_step = facts["step"]
            files.prune(final, self.keep, self.config_hash, self._unusable)

    def _clean_up(self) -> list[str]:
        try:
            lines = files.clean_up(self.root)
            if not os.access(self.root, os.W_OK | os.X_OK):
                raise UserError(f"can't write to {self.root}: it is read-only for this user")
            check_renames(self.root)
        except OSError as error:
            raise UserError(f"can't write to {self.root}: {error.strerror}") from error
        return lines


def _read_into(values: dict[str, Any], path: Path) -> str | None:
    """Read a checkpoint into `values` in this process alone; return why it can't be read, or None.

    Into their memory where they are tensors, else in their place.
    """
    try:
        dcp.load(values, storage_reader=FileSystemReader(path), no_dist=True)
    except CheckpointException as failure:
        return f"it can't be read: {reason_of(failure)}"
    return None


def reason_of(error: BaseException) -> str:
    """Return the first cause in one line; DCP wraps the error and traceback of each rank."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).partition("\n")[0] or type(error).__name__
