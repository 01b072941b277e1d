"""Reading from a file system that stumbles: reopen, try again for a minute, then blame the disk."""

import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pix2pix.errors import StorageError

PATIENCE_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0

# What a network file system says of itself, not of the file: a server that restarts or fails over,
# a handle that it has forgotten, a connection that is gone. A dying disk says EIO as well.
TRANSIENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "ENODEV", "ENOTCONN", "ENOLINK", "EREMOTEIO"),
        *("ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETUNREACH", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
)

T = TypeVar("T")


class PatientFile:
    """A file that is read at offsets, opened anew where its file system stumbles.

    Raises OSError where it can't be opened, and StorageError where the trouble lasts a minute.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._descriptor = patiently(self._open, path)

    def pread(self, size: int, offset: int) -> bytes:
        """Return `size` bytes at `offset`; fewer only where the file ends before."""
        return patiently(lambda: self._read(size, offset), self.path, self._reopen)

    def close(self) -> None:
        """Close it; a handle that the server has forgotten closes, too."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                if error.errno not in TRANSIENT:
                    raise

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:  # -1, or unset: it was never opened
            self.close()

    def _read(self, size: int, offset: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not piece:
                break
            data += piece
        return data

    def _open(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _reopen(self) -> None:
        self.close()
        self._descriptor = self._open()


def patiently(
    work: Callable[[], T], path: str | Path, before_retry: Callable[[], None] = lambda: None
) -> T:
    """Return what `work` does with `path`, tried again for a minute where its disk stumbles.

    Says so once in this process. before_retry: such as to open the file anew.
    Raises StorageError where it lasts; after that this process waits no second minute.
    """
    global _gave_up
    deadline = time.monotonic() + (0 if _gave_up else PATIENCE_SECONDS)
    pause = FIRST_PAUSE_SECONDS
    retry = False
    while True:
        try:
            if retry:
                before_retry()
            return work()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            _say_once(path, error)
            if time.monotonic() + pause > deadline:
                _gave_up = True
                raise StorageError(
                    f"the file system of {path} does not answer for {PATIENCE_SECONDS:g} s: "
                    f"{error.strerror}"
                ) from error
        time.sleep(pause)
        pause, retry = min(2 * pause, LONGEST_PAUSE_SECONDS), True


_gave_up = False
_said = False


def _say_once(path: str | Path, error: OSError) -> None:
    global _said
    if not _said:
        _said = True
        print(
            f"{path}: {error.strerror}; trying again for up to {PATIENCE_SECONDS:g} s",
            file=sys.stderr,
            flush=True,
        )
