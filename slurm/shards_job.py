"""Data preparation on many machines: the parts of an array, and the merge after them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.merge_shards import MergeShardsOptions, merge_shards
from slurm.job import telling_errors
from slurm.process_group import Member
from slurm.records import Records
from slurm.requeue import STOPPED, decide_on_job, requeue
from slurm.snapshot import check_snapshot


@dataclass(frozen=True)
class PartJob:
    """One part of a split, by one machine; started again, it goes on.

    options: with their `part`. folder: of the logs.
    """

    options: MakeShardsOptions
    folder: Path
    snapshot: Path | None = None

    def __call__(self) -> int:
        """Make the shards of this part."""
        member = Member.of(os.environ)
        with telling_errors(Records(self.folder), member):
            check_snapshot(self.snapshot)
            before = self._num_shards()
            try:
                with _interrupted_by(signal.SIGUSR2, signal.SIGTERM):
                    return make_shards(self.options)
            except KeyboardInterrupt:
                if not member.is_slurm or member.job_id is None:
                    raise
            verdict = decide_on_job(member.job_id, self._num_shards(), before, asked_to_stop=True)
            print(f"{'' if verdict.requeue else 'not '}requeued: {verdict.reason}", flush=True)
            if verdict.requeue:
                requeue(member.job_id)
            return STOPPED

    def _num_shards(self) -> int:
        return len(list(self.options.out.glob("*.tar")))


@dataclass(frozen=True)
class MergeJob:
    """One manifest of all parts."""

    options: MergeShardsOptions
    folder: Path
    snapshot: Path | None = None

    def __call__(self) -> int:
        """Write the manifest."""
        with telling_errors(Records(self.folder), Member.of(os.environ)):
            check_snapshot(self.snapshot)
            return merge_shards(self.options)


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Let these signals do what Ctrl-C does: data preparation ends in good order then."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in signals:
            signal.signal(other, signal.SIG_IGN)  # one interrupts; a second would disturb its end
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
