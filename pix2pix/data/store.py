"""Files of a store (s3, gs, az, hf) through fsspec, never waited for without an end (no torch).

Its libraries have time-outs of all kinds or none, and tries of their own. So every answer has its
time here. They print warnings and tracebacks, too, which are kept away: what went wrong is one
sentence of ours (store_errors.py).
"""

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import IO, Any, TypeVar, cast

from pix2pix.data.store_errors import refuse_user_info

CONNECT_SECONDS = 10
BLOCK = 2**23  # bytes asked of a store at a time
ANSWER_SECONDS = 60.0  # for a block, or another answer; below 140 kB/s nobody trains
_SILENT_SECONDS = 20  # of s3's own
_TRIES = 3  # of s3's own

T = TypeVar("T")


# Their warnings and tracebacks may name what a secret stands in.
_LOUD = ("adlfs", "azure", "gcsfs", "google", "huggingface_hub", "s3fs")


def make_ready(url: str) -> None:
    """Prepare this process to open a store's URL. Raises UserError: its endpoint has user info."""
    refuse_user_info(url)
    # gcsfs would ask for the kind of each bucket, by another protocol, with the right to do so or
    # a warning. Buckets of zones, which are read by that protocol alone, need "true".
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    if url.startswith("hf://"):
        from huggingface_hub.utils import disable_progress_bars  # sets its level when imported

        if not sys.stderr.isatty():  # in a log, bars are thousands of lines
            disable_progress_bars()
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def store_options(url: str) -> dict[str, Any]:
    """Return what fsspec is to be told of a store: time-outs, where it knows them."""
    if not url.startswith("s3://"):
        return {}
    return {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": _SILENT_SECONDS,
            "retries": {"max_attempts": _TRIES},
        }
    }


def open_by_fsspec(url: str, mode: str, bufsize: int, **_: Any) -> IO[bytes]:
    """Open a file of a store, as `webdataset.gopen_schemes` wants it; TimeoutError: no answer."""
    import fsspec.core

    def open_it() -> IO[bytes]:
        system, path = fsspec.core.url_to_fs(url, **store_options(url))
        return cast("IO[bytes]", system.open(path, mode, block_size=BLOCK))

    return cast("IO[bytes]", _Watched(within(ANSWER_SECONDS, open_it)))


class _Watched(io.RawIOBase):
    """A file of a store; a block of it that does not come in time raises TimeoutError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return within(ANSWER_SECONDS, lambda: self._file.read(size))

    def close(self) -> None:
        self._file.close()
        super().close()


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns; raises what it raises, and TimeoutError after `seconds`.

    Then its thread is left to itself: a library that waits for ever cannot be interrupted.
    """
    outcomes: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def run() -> None:
        try:
            outcomes.put((True, work()))
        except BaseException as error:
            outcomes.put((False, error))

    threading.Thread(target=run, name="store", daemon=True).start()
    try:
        is_well, outcome = outcomes.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if is_well:
        return cast("T", outcome)
    raise outcome
