"""Bytes of a file or a URL, as a stream that never hangs and never tells a secret (no torch).

URLs are opened by `webdataset.gopen`, with openers of our own in its public table: http(s) by curl
with time-outs (gopen's own waits for ever on a server that falls silent), stores by fsspec. What
goes wrong is one sentence of ours: gopen's holds the command line, and with it any token.
"""

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from pix2pix.data.store import CONNECT_SECONDS, make_ready, open_by_fsspec
from pix2pix.data.store_errors import (
    ABSENT,
    NO_HOST,
    SILENT,
    UNTRUSTED,
    http_cause,
    reason,
    through_proxy,
)
from pix2pix.errors import UserError
from pix2pix.system.light_webdataset import import_webdataset
from pix2pix.system.reading import PatientFile
from pix2pix.system.urls import QUERY_VARIABLE, is_url

CHUNK = 2**20  # bytes read at a time
SILENT_SECONDS = 20  # below SLOWEST bytes per second for so long: the server has fallen silent
SLOWEST = 1024
RETRIES = 3  # of curl itself: time-outs, 408, 429, 5xx

# The package that fsspec needs for a scheme, and what to install for it.
_PACKAGES = {
    "s3": ("s3fs", "-e '.[s3]'"),
    "gs": ("gcsfs", "-e '.[gs]'"),
    "az": ("adlfs", "-e '.[az]'"),
    "hf": ("huggingface_hub", "huggingface_hub"),
}

# Exit statuses of curl (its man page): what they mean, and whether another try may go better.
_CURL: dict[int, tuple[str, bool]] = {
    5: ("there is no such host", False),
    6: (NO_HOST, False),
    7: ("the host refuses the connection", False),
    18: ("the transfer was cut short", True),
    28: (SILENT, False),
    35: ("no secure connection (TLS)", False),
    47: ("it redirects for ever", False),
    52: ("the server answers nothing", True),
    56: ("the connection broke", True),
    60: (UNTRUSTED, False),
    92: ("the connection broke", True),
}
_OF_HOST = (5, 6, 7, 28)  # or of the proxy before it


class FetchError(UserError):
    """Something that could not be fetched.

    passing: another try may go better. absent: who should have it says that it is not there.
    """

    def __init__(self, message: str, passing: bool = False, absent: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.absent = absent


def read_all(place: str, most: int) -> bytes:
    """Return the bytes of a file or a URL. Raises FetchError, also for more than `most` bytes."""
    data = bytearray()
    for chunk in chunks(place):
        data += chunk
        if len(data) > most:
            raise FetchError(f"cannot read {place}: more than {most:,} bytes")
    return bytes(data)


def chunks(place: str) -> Iterator[bytes]:
    """Return the bytes of a file or a URL, CHUNK at a time.

    Raises FetchError: place and cause; StorageError where the file system of a file does not answer
    for a minute.
    """
    try:
        yield from _chunks_of_url(place) if is_url(place) else _chunks_of_file(place)
    except UserError:
        raise
    except _Failed as error:
        message = f"cannot fetch {place}: {error}"
        raise FetchError(message, error.passing, error.absent) from None
    except Exception as error:  # fsspec's file systems raise the types of their own libraries
        verb = "fetch" if is_url(place) else "read"
        message = f"cannot {verb} {place}: {reason(place, error)}"
        raise FetchError(message, absent=isinstance(error, FileNotFoundError)) from None


def _chunks_of_file(place: str) -> Iterator[bytes]:
    file, offset = PatientFile(Path(place)), 0
    try:
        while chunk := file.pread(CHUNK, offset):
            yield chunk
            offset += len(chunk)
    finally:
        file.close()


def _chunks_of_url(place: str) -> Iterator[bytes]:
    with _open(place) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _open(place: str) -> IO[bytes]:
    check_store(place)
    webdataset: Any = import_webdataset()
    openers = {"http": _open_by_curl, "https": _open_by_curl}
    webdataset.gopen_schemes |= openers | dict.fromkeys(_PACKAGES, open_by_fsspec)
    return cast("IO[bytes]", webdataset.gopen(place))


def check_store(url: str) -> None:
    """Raise UserError where a store's URL cannot be opened, and prepare this process to open it.

    Its package is absent (FetchError, which names the extra), or its endpoint carries a user.
    """
    package, wanted = _PACKAGES.get(urlsplit(url).scheme, ("", ""))
    if package and find_spec(package) is None:
        raise FetchError(
            f"cannot fetch {url}: it needs the package {package}: pip install {wanted}"
        )
    if package:
        make_ready(url)


def _open_by_curl(url: str, mode: str, bufsize: int, **_: Any) -> IO[bytes]:
    if shutil.which("curl") is None:
        raise _Failed("it needs the program curl, which is not installed", passing=False)
    return io.BufferedReader(_Curl(url), CHUNK)


class _Failed(Exception):
    def __init__(self, cause: str, passing: bool, absent: bool = False) -> None:
        super().__init__(cause)
        self.passing = passing
        self.absent = absent


class _Curl(io.RawIOBase):
    """What curl writes. Read to the end, it raises _Failed unless all went well."""

    def __init__(self, url: str) -> None:
        command = ["curl", "-q", "--silent", "--fail", "--location", "--netrc-optional"]
        command += ["--proto", "=http,https", "--proto-redir", "=http,https"]
        command += ["--connect-timeout", str(CONNECT_SECONDS), "--retry", str(RETRIES)]
        command += ["--speed-limit", str(SLOWEST), "--speed-time", str(SILENT_SECONDS)]
        command += ["--write-out", "%{stderr}%{http_code}", "--config", "-"]
        self._ended = False
        self._url = url
        # A session of its own: stop signals of a job are not for it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        # By standard input: every user of the machine can read a command line.
        query = os.environ.get(QUERY_VARIABLE, "").lstrip("?")
        whole = f"{url}?{query}" if query else url
        escaped = whole.replace("\\", "\\\\").replace('"', '\\"')
        self._process.stdin.write(f'url = "{escaped}"\n'.encode())
        self._process.stdin.close()
        self._process.stdin = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._process.returncode is not None:
            return 0
        if self._ended:  # a reader asks again after the end
            return 0
        assert self._process.stdout is not None
        count = self._process.stdout.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            self._ended = True
            self._check()
        return int(count)

    def close(self) -> None:
        if self._process.returncode is None:  # not read to the end
            self._process.kill()
            self._process.communicate()
        super().close()

    def _check(self) -> None:
        _, told = self._process.communicate()
        status = self._process.returncode
        if status == 22:
            code = int(told[-3:] or 0)
            raise _Failed(http_cause(code), passing=False, absent=code == ABSENT)
        if status:
            cause, passing = _CURL.get(status, (f"curl ends with status {status}", False))
            proxy = through_proxy(self._url) if status in _OF_HOST else ""
            raise _Failed(cause + proxy, passing)
