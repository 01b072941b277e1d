"""Data preparation on many machines: the parts of an array, and the merge after them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.merge_shards import MergeShardsOptions, merge_shards
from pix2pix.cli.options import option
from pix2pix.errors import UserError
from slurm.job import end_stopped, in_job
from slurm.records import Records, Stop
from slurm.scheduler import ENDED, jobs


@dataclass(frozen=True)
class PartsOptions:
    """How many machines share the preparation of shards."""

    parts: int = option(help="number of machines that share the work", unit="parts", group="shards")

    def __post_init__(self) -> None:
        """Check the number."""
        if self.parts < 1:
            raise UserError(f"parts must be at least 1, not {self.parts}")


@dataclass(frozen=True)
class PartJob:
    """One part of a split, by one machine; started again, it goes on.

    options: with their `part`. folder: of the logs.
    """

    options: MakeShardsOptions
    folder: Path
    snapshot: Path | None = None

    def __call__(self) -> int:
        """Make the shards of this part. Returns 0 or, stopped, 75."""
        with in_job(self.folder, self.snapshot) as (member, records):
            before = self._num_shards()
            try:
                with _interrupted_by(signal.SIGUSR2, signal.SIGTERM):
                    return make_shards(self.options)
            except KeyboardInterrupt:
                if not member.is_slurm:
                    raise
        return end_stopped(member, records, Stop(self._num_shards(), before, "signal"))

    def _num_shards(self) -> int:
        return len(list(self.options.out.glob("*.tar")))


@dataclass(frozen=True)
class MergeJob:
    """One manifest of all parts.

    array: the job whose tasks are the parts; None where they have run before this one, and well.
    """

    options: MergeShardsOptions
    folder: Path
    snapshot: Path | None = None
    array: str | None = None

    def __call__(self) -> int:
        """Write the manifest. A part that failed is an error, and there is none."""
        with in_job(self.folder, self.snapshot) as (_, records):
            failed = failed_parts(records, self.array) if self.array else []
            if failed:
                raise UserError(
                    f"no merge, because of {'; '.join(failed)}. The same command makes what is "
                    "missing"
                )
            return merge_shards(self.options)


def failed_parts(records: Records, array: str) -> list[str]:
    """Return what is to be told of each part that has not ended well: `part 2: …`."""
    rows = jobs([array])
    failed = {job: row.state for job, row in rows.items() if row.state in ENDED - {"COMPLETED"}}
    reasons = {job: f"SLURM says {state}" for job, state in failed.items()}
    for path in records.folder.glob(f"{array}_*.error"):
        job = path.stem.rpartition("_")[0]
        # A later start may have ended well. In a container, SLURM's programs may be missing.
        if job in failed or not rows:
            reasons[job] = path.read_text().strip()
    return [f"{_part_of(job)}: {reason}" for job, reason in reasons.items()]


def _part_of(job: str) -> str:
    """Return the part of an array's task, for people; `12` alone is the only part."""
    task = job.partition("_")[2] or "0"
    # `12_[3-5]` are tasks that never started
    return f"part {int(task) + 1}" if task.isdecimal() else f"array tasks {task}"


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Treat these signals as Ctrl-C: data preparation then ends in good order."""

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
