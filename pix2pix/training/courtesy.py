"""Logs are a courtesy: a full disk costs a warning and some curves, never the training."""

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

MOST_PENDING = 100_000  # lines that wait for a disk to have room again: some 50 MB


class Courtesy:
    """Turns errors of a disk into one warning, until the disk works again."""

    def __init__(self) -> None:
        self.failing: set[str] = set()

    @contextlib.contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Turn an OSError inside, while `what` is written, into one warning."""
        try:
            yield
        except OSError as error:
            self.failed(what, error)
        else:
            self.failing.discard(what)

    def failed(self, what: str, error: OSError) -> None:
        """Print a warning, unless something fails already."""
        if not self.failing:
            print(
                f"warning: can't write {what}: {error.strerror or error}; the training goes on, "
                "and writes\nits logs again when that is possible",
                file=sys.stderr,
                flush=True,
            )
        self.failing.add(what)


class LineFile:
    """Lines at the end of a file; what can't be written now is written with a later one."""

    def __init__(self, path: Path, courtesy: Courtesy) -> None:
        self.path = path
        self._courtesy = courtesy
        self._pending: deque[bytes] = deque(maxlen=MOST_PENDING)

    def write(self, line: str) -> None:
        """Add a line, which others can read at once."""
        self._pending.append(line.encode() + b"\n")
        self.write_pending()

    def write_pending(self) -> None:
        """Write what could not be written before."""
        with self._courtesy.of(self.path.name), self.path.open("ab", buffering=0) as file:
            while self._pending:
                line = self._pending[0]
                length = file.tell()
                try:
                    written = file.write(line)
                    if written != len(line):  # the disk is full now: the next try says so
                        written = (written or 0) + (file.write(line[written:]) or 0)
                    if written != len(line):
                        raise OSError("the disk took a part of a line")
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(length)  # half a line is none
                    raise
                self._pending.popleft()


class Board:
    """TensorBoard's writer, replaced after its file could not be written.

    Its thread dies of the first error, and every later call raises that error again.
    """

    def __init__(self, folder: Path, first_step: int | None, courtesy: Courtesy) -> None:
        threading.excepthook = _quiet
        self.folder = folder
        self._first_step = first_step
        self._courtesy = courtesy
        self._writer: SummaryWriter | None = None

    def write(self, add: Callable[[SummaryWriter], None]) -> None:
        """Call `add` with a writer, and flush what it wrote."""
        try:
            if self._writer is None:
                # purge_step: without it, a resumed run draws doubled curves where TensorBoard's
                # slow loader reads it (and its EventAccumulator). The fast one ignores it, and lets
                # a step logged again replace what it has of this step and later.
                self._writer = SummaryWriter(str(self.folder), purge_step=self._first_step)
                self._first_step = None  # a second writer of this start goes on, and drops nothing
            add(self._writer)
            self._writer.flush()
            self._courtesy.failing.discard("tensorboard")
        except OSError as error:
            self._abandon()
            self._courtesy.failed("tensorboard", error)

    def close(self) -> None:
        """Close the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._courtesy.of("tensorboard"):
                writer.close()

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):  # whatever a writer without a thread says
                writer.close()


def _quiet(failure: threading.ExceptHookArgs) -> None:
    """Leave out the traceback of TensorBoard's thread: whoever writes next tells its error."""
    of_its_disk = isinstance(failure.exc_value, OSError)
    if not (of_its_disk and type(failure.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(failure)
