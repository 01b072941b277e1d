"""Who makes which shards: parts of the work, and the locks that keep two runs apart."""

import fcntl
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TypeVar

from pix2pix.errors import UserError

T = TypeVar("T")

_LOCK = ".lock"
_PATIENCE_SECONDS = 10.0  # for the workers of a killed run, which need milliseconds to notice


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`, from 1 on: what one machine of several makes."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part that "2/8" says; raises UserError where it says none."""
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--part {text}: give I/N with I from 1 to N, as 2/8")
        return cls(int(match[1]), int(match[2]))

    def share_of(self, things: Sequence[T]) -> Sequence[T]:
        """Every `count`-th of `things`: the shares are disjoint, and differ by one in length."""
        return things[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@contextmanager
def own(root: Path, part: Part | None = None) -> Iterator[Path]:
    """Be the only run that writes to `root`, or the only one that makes `part` of its shards.

    Yields the file on which the run's workers `hold` a lock while they live. Raises UserError while
    another run writes what this one would; parts of one division write at the same time. The kernel
    releases the locks however a process ends. Where a file system has no locks, none are held.
    """
    name = f"{_LOCK}.{part.number}-of-{part.count}" if part else _LOCK
    workers = root / f"{name}.workers"
    with (root / _LOCK).open("a+") as folder:
        if part is None:
            if not _lock(folder, fcntl.LOCK_EX):
                raise UserError(_another_writes_to(root))
            _wait_for_workers(root.glob(f"{_LOCK}*.workers"))
            yield workers
            return
        _share(folder, part)
        with (root / name).open("a+") as own_part:
            if not _lock(own_part, fcntl.LOCK_EX):
                raise UserError(f"part {part} is being made in {root}; wait for it, or end it")
            _wait_for_workers([workers])
            yield workers


def hold(file: Path) -> IO[str]:
    """Hold a lock on `file`, together with others, until what is returned is closed."""
    held = file.open("a+")
    with suppress(OSError):  # no locks here: the parent has said so
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return held


def num_parts(root: Path) -> int | None:
    """How many parts make the shards of `root`, or made them last; None where none was made."""
    path = root / _LOCK
    text = path.read_text() if path.exists() else ""
    return int(text) if text.isdecimal() else None


def _share(folder: IO[str], part: Part) -> None:
    """Lock `folder` together with the parts of the same division, and against all others.

    The first to come has it for itself until no worker of an earlier run is left, and writes the
    number of parts into it; so the others are patient.
    """
    root = Path(folder.name).parent
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        if _lock(folder, fcntl.LOCK_EX):
            _wait_for_workers(root.glob(f"{_LOCK}*.workers"))
            folder.truncate(0)
            folder.write(str(part.count))
            folder.flush()
        shared = _lock(folder, fcntl.LOCK_SH)  # which may be lost to another on the way from EX
        if shared and num_parts(root) == part.count:
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"{root} is being made in {num_parts(root)} parts; wait for them, or end them"
                if shared
                else _another_writes_to(root)
            )
        fcntl.flock(folder, fcntl.LOCK_UN)
        time.sleep(0.01)


def _wait_for_workers(files: Iterable[Path]) -> None:
    """Return when no process holds a lock on any of `files`."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for file in files:
        with file.open("a+") as workers:
            while not _lock(workers, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise UserError(
                        f"processes of an earlier make_shards write to {file.parent}; end them"
                    )
                time.sleep(0.01)


def _lock(file: IO[str], kind: int) -> bool:
    """Whether the lock was had; True as well where the file system knows no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        _warn_without_locks(Path(file.name).parent, error.strerror)
    return True


@cache
def _warn_without_locks(root: Path, reason: str) -> None:
    message = f"{root}: no locks on this file system ({reason})"
    print(f"{message}; let no two runs make the same shards there", file=sys.stderr)


def _another_writes_to(root: Path) -> str:
    return f"another make_shards is writing to {root}; wait for it, or end it"
