"""Parts of the work, and the locks that keep two runs from making the same shards."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from pix2pix.errors import UserError

T = TypeVar("T")

_GATE = ".lock"  # held while a run looks for others; beside it one file a part, .lock.2-of-8
_PATIENCE_SECONDS = 10.0  # for others that look, which need milliseconds


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`, from 1 on: what one machine of several makes."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Return the part that "2/8" says; raises UserError where it says none."""
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--part {text}: give I/N with I from 1 to N, as 2/8")
        return cls(int(match[1]), int(match[2]))

    def share_of(self, things: Sequence[T]) -> Sequence[T]:
        """Return every `count`-th of `things`: shares are disjoint, their lengths differ by one."""
        return things[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@contextmanager
def own(root: Path, part: Part | None = None) -> Iterator[None]:
    """Be the only run that writes to `root`, or the only one that makes `part` of its shards.

    Parts of one division write at the same time. The kernel releases the locks however a process
    ends. A run of the whole that succeeds leaves no lock, nor what its parts noted for each other.

    Raises:
        UserError: another run writes what this one would.
    """
    mine = part or Part(1, 1)
    gate = take_lock(root / _GATE, _PATIENCE_SECONDS)
    if gate is None:
        raise UserError(_another_writes_to(root))
    try:
        for other in _parts_of(root):
            if other.count != mine.count:
                _look_for(root, other, mine)
        lock = take_lock(_lock_of(root, mine))
        if lock is None:
            raise UserError(_refusal(root, mine, mine))
    finally:
        gate.release()
    try:
        yield
        if part is None:
            _tidy(root)
    finally:
        lock.release()


def _tidy(root: Path) -> None:
    """Remove the hidden files of a finished folder, while nobody looks for others."""
    gate = take_lock(root / _GATE, _PATIENCE_SECONDS)
    if gate is None:
        return  # another run begins: it takes the folder as it is
    try:
        for hidden in (*root.glob(f"{_GATE}.*"), *root.glob(".duplicates-*.json"), root / _GATE):
            hidden.unlink(missing_ok=True)
    finally:
        gate.release()


def num_parts(root: Path) -> int | None:
    """Return how many parts make the shards of `root`, or made them last; None without parts."""
    return max((part.count for part in _parts_of(root) if part.count > 1), default=None)


def take_lock(file: Path, seconds: float = 0.0) -> FileLock | None:
    """Take the lock on `file`, which is made; return None if another still has it after `seconds`.

    On a file system without locks the one returned keeps nobody out, which is said once.
    """
    file.open("a").close()  # errors of the folder, told apart from those of locks
    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=seconds, poll_interval=0.01)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        _warn_without_locks(file.parent, getattr(error, "strerror", None) or str(error))
    return lock


def _look_for(root: Path, other: Part, mine: Part) -> None:
    """Forget a part of another division, or raise UserError if it is being made."""
    lock = take_lock(_lock_of(root, other))
    if lock is None:
        raise UserError(_refusal(root, other, mine))
    lock.release()
    if mine.count > 1:  # else `num_parts` still tells how the shards were made
        _lock_of(root, other).unlink()


def _lock_of(root: Path, part: Part) -> Path:
    return root / f"{_GATE}.{part.number}-of-{part.count}"


def _parts_of(root: Path) -> set[Part]:
    """Return the parts that have a lock, held or not."""
    matches = (re.fullmatch(r"\.lock\.(\d+)-of-(\d+)", path.name) for path in root.glob(".lock.*"))
    return {Part(int(match[1]), int(match[2])) for match in matches if match}


def _refusal(root: Path, running: Part, coming: Part) -> str:
    if 1 in (running.count, coming.count):
        return _another_writes_to(root)
    if running == coming:
        return f"part {running} is being made in {root}; wait for it, or end it"
    return f"{root} is being made in {running.count} parts; wait for them, or end them"


@cache
def _warn_without_locks(root: Path, reason: str) -> None:
    message = f"{root}: no locks on this file system ({reason})"
    print(f"{message}; let no two runs write to it at the same time", file=sys.stderr)


def _another_writes_to(root: Path) -> str:
    return f"another make_shards is writing to {root}; wait for it, or end it"
