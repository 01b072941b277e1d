"""Reasons to stop before the end: a signal, the time limit, a disk that does not answer."""

import os
import socket
import time
from dataclasses import dataclass, field

from pix2pix.config import TrainConfig
from pix2pix.data.stream import BatchStream
from pix2pix.run.distributed import Distributed
from pix2pix.system.signals import StopRequest


@dataclass
class Stops:
    """Decides whether this rank must stop: a signal, the time limit, shards that can't be read.

    failed_nodes: after `conclude`, the nodes whose file system did not answer, by name, each with
        what it said; empty where the disk is not the reason.
    """

    config: TrainConfig
    request: StopRequest
    since: float  # time.monotonic() of the start
    storage_error: str | None = None
    failed_nodes: dict[str, str] = field(default_factory=dict)

    def at_start(self, stream: BatchStream, distributed: Distributed) -> bool:
        """Return True, on every rank, if the first batches can't be read: nothing is trained."""
        stream.fetch()
        self.storage_error = stream.storage_error
        return any(distributed.all_gather_object(self.storage_error is not None))

    def is_asked_for(self) -> bool:
        """Return True if a signal came to this rank, or its time is over."""
        limit = self.config.time_limit_minutes
        late = limit is not None and time.monotonic() - self.since >= 60 * limit
        return late or self.request.received is not None

    def due(self, stream: BatchStream) -> bool:
        """Return True if this rank must stop after this step."""
        self.storage_error = self.storage_error or stream.storage_error
        return self.is_asked_for() or self.storage_error is not None

    def conclude(self, step: int, distributed: Distributed) -> str:
        """Return the last line, the same on every rank; all must call it."""
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        told = distributed.all_gather_object((node, self.storage_error))
        self.failed_nodes = {name: error for name, error in told if error is not None}
        where = f"and saved at step {step}" if step else "before the first step"
        line = f"stopped {where}; the same command goes on"
        if self.failed_nodes:
            name, error = next(iter(self.failed_nodes.items()))
            others = len(self.failed_nodes) - 1
            more = f" and {others} more" if others else ""
            line = f"{line}. The reason is the disk: {error} (on {name}{more})"
        return line
