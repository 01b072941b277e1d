"""Files of a store (s3, gs, az, hf) through fsspec, never waited for without an end (no torch).

Its libraries have time-outs of all kinds or none, and tries of their own. So every answer has its
time here, and what went wrong is a sentence of ours.
"""

import io
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import IO, Any, TypeVar, cast
from urllib.parse import urlsplit

CONNECT_SECONDS = 10
BLOCK = 2**23  # bytes asked of a store at a time
ANSWER_SECONDS = 60.0  # for a block, or another answer; below 140 kB/s nobody trains
_SILENT_SECONDS = 20  # of s3's own
_TRIES = 3  # of s3's own

T = TypeVar("T")


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


def cause_of(error: Exception) -> str:
    """Return what went wrong, without the words of libraries, which may hold a secret."""
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, PermissionError) or "Credentials" in name:
        return "access is denied; credentials may be missing"
    if _is_silence(error):
        return "the server does not answer, or has fallen silent"
    if "SSL" in name or "Certificate" in name:
        return "its certificate is not to be trusted"
    if "Connect" in name:
        return "the host refuses the connection, or there is none"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return name


def _is_silence(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__


def endpoint(place: str, error: Exception) -> str:
    """Return " (at HOST)" where a bucket's name does not say who did not answer."""
    name = type(error).__name__
    is_of_host = _is_silence(error) or any(word in name for word in ("Connect", "SSL", "Cert"))
    if not place.startswith("s3://") or not is_of_host:
        return ""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    told = next((os.environ[name] for name in names if os.environ.get(name)), "")
    host = urlsplit(told).netloc.rpartition("@")[2]
    return f" (at {host})" if host else ""
