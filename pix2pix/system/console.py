"""Output that may be lost without ending the process: its reader is gone, or its disk full."""

import contextlib
import io
import os
import sys
from typing import TextIO, cast


def never_fail() -> None:
    """Keep `print` from raising in this process: stdout closed, its reader gone, its disk full.

    A letter that the terminal's encoding lacks becomes a question mark.
    """
    _reserve_descriptors()
    sys.stdout = _unfailing(sys.stdout, 1)
    sys.stderr = _unfailing(sys.stderr, 2)


def _reserve_descriptors() -> None:
    """Open /dev/null where 0, 1 or 2 are closed, or the next file opened would be printed into."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _unfailing(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed when Python started
        return cast(TextIO, io.TextIOWrapper(_Forgiving(-1), encoding="utf-8", line_buffering=True))
    try:
        own = stream.fileno() == descriptor
    except (OSError, ValueError):
        own = False
    if not own:  # somebody, a test for one, has put another in its place
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    raw = io.BufferedWriter(_Forgiving(descriptor))
    return cast(
        TextIO,
        io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=True),
    )


class _Forgiving(io.RawIOBase):
    """Writes to a descriptor; what can't be written is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._descriptor < 0:
            raise OSError("it is closed")
        return self._descriptor

    def isatty(self) -> bool:
        return self._descriptor >= 0 and os.isatty(self._descriptor)

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                return os.write(self._descriptor, data)
        return len(data)
