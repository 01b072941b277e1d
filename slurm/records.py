"""The history of a run on a cluster: submissions, starts, ends and errors, beside the logs.

history.jsonl has a line for each submission, start and end. The first error of a start has a file
of its own, made by the rank that failed first.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pix2pix.errors import LostProcessError
from pix2pix.system.durable import publish_json

Cause = Literal["signal", "time_limit_minutes", "disk"]
_COLUMNS = 500  # of an error that is told in one line


class Stop(NamedTuple):
    """A start that ended before its work was done, and has saved.

    step, first_step: where it ended, and where it began. cause: a signal came, the user's own
    time_limit_minutes were over, or a disk failed. faulty_nodes: where it did.
    """

    step: int
    first_step: int
    cause: Cause
    faulty_nodes: Sequence[str] = ()


class Records:
    """The files in `folder`; any rank adds errors, rank 0 and submit.py the rest."""

    def __init__(self, folder: Path) -> None:
        """Set the paths; nothing is read or made yet."""
        self.folder = folder
        self.history = self.folder / "history.jsonl"

    def add(self, event: str, **facts: Any) -> None:
        """Append a line: submitted, started or ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"event": event, "time": round(time.time(), 3), **facts}
        with self.history.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return all lines, oldest first, or those of one event."""
        return [line for line in self._lines() if event in (None, line["event"])]

    def tell_error(self, attempt: str, rank: str, error: BaseException) -> None:
        """Keep the error of a rank unless another was first; in one line.

        attempt: which start of which job. An error that only says that a peer is gone is kept
        apart: it follows from what happened to the peer.
        """
        kind = "lost" if isinstance(error, LostProcessError) else "error"
        text = " ".join(f"{rank}: {type(error).__name__}: {error}".split())
        with suppress(FileExistsError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{attempt}.{kind}").open("x") as file:
                file.write(text[:_COLUMNS] + "\n")

    def first_error(self, attempt: str) -> str | None:
        """Return the error that a rank had for reasons of its own, if one had."""
        return self._told(f"{attempt}.error")

    def lost_peer(self, attempt: str) -> str | None:
        """Return what a rank said that missed another one."""
        return self._told(f"{attempt}.lost")

    def tell_stop(self, attempt: str, stop: Stop) -> None:
        """Keep for the job's script how rank 0 ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        publish_json(self.folder / f"{attempt}.stop", stop._asdict())

    def stop(self, attempt: str) -> Stop | None:
        """Return how rank 0 ended, if it was stopped and has saved."""
        told = self._told(f"{attempt}.stop")
        return Stop(**json.loads(told)) if told else None

    def last_error(self, job: str) -> str | None:
        """Return the error of the last start of a job that had one."""
        files = [*self.folder.glob(f"{job}_*.error"), *self.folder.glob(f"{job}_*.lost")]
        # Of one start, the error says more than that somebody was missed.
        files.sort(key=lambda path: (int(path.stem.rpartition("_")[2]), path.suffix == ".error"))
        return files[-1].read_text().strip() if files else None

    def _told(self, name: str) -> str | None:
        path = self.folder / name
        return path.read_text().strip() if path.exists() else None

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.history.read_text().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            with suppress(ValueError):  # a killed writer may leave half a line
                yield json.loads(line)
