"""What a web server answers, and whether to ask it again."""

import random
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, InvalidURL
from socket import EAI_NONAME, gaierror
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from pix2pix.errors import UserError

T = TypeVar("T")
Say = Callable[[str], None]

_CHUNK = 2**20  # bytes that are asked for at once; what is there of them is taken
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another try may mend
_LONGEST_WAIT = 600.0  # seconds, whatever a server asks for


@dataclass(frozen=True)
class Patience:
    """How often to try without getting any further; whatever has come starts the count anew.

    These figures sit out five to ten minutes without a network. timeout_seconds: of silence, after
    which a connection counts as dead.
    """

    tries: int = 12
    first_seconds: float = 1.0
    most_seconds: float = 120.0
    timeout_seconds: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures (from 1): doubled each time, less up to a half.

        By chance, so that the clients of a server that was down do not come back all at once.
        """
        longest = min(self.most_seconds, self.first_seconds * 2.0 ** (failures - 1))
        return longest * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Remote:
    """What a server offers at `url`: how many bytes, and by what it tells their versions apart."""

    url: str
    num_bytes: int | None
    etag: str | None
    modified: str | None  # an HTTP date

    @property
    def validator(self) -> str | None:
        """For If-Range, which allows no weak tags (RFC 9110, 13.1.5)."""
        is_strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if is_strong else self.modified

    def agrees_with(self, other: "Remote") -> bool:
        """Whether nothing that both of them say differs: a partial answer may say less."""
        pairs = (
            (self.num_bytes, other.num_bytes),
            (self.etag, other.etag),
            (self.modified, other.modified),
        )
        return all(one == two or None in (one, two) for one, two in pairs)


class TryAgainError(Exception):
    """The connection or the server failed in a way that may pass."""

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds  # as the server asks for


class BeyondEndError(Exception):
    """Bytes were asked for that the file does not have (status 416)."""

    def __init__(self, num_bytes: int | None) -> None:
        super().__init__()
        self.num_bytes = num_bytes  # that it has


def persist(
    attempt: Callable[[], T],
    patience: Patience,
    say: Say,
    name: str,
    got: Callable[[], int] = lambda: 0,
) -> T:
    """What `attempt` returns; after each TryAgainError it is called again, `patience` allowing.

    name: of the file, for the lines that say so. got: how many bytes of it have come. Raises
    UserError when patience ends.
    """
    failures = furthest = 0
    while True:
        try:
            return attempt()
        except TryAgainError as error:
            if got() > furthest:
                failures, furthest = 0, got()
            failures += 1
            if failures >= patience.tries:
                raise UserError(
                    f"{name}: {error}. Given up after {failures} tries; the same command goes on "
                    "from here later"
                ) from error
            wait = max(patience.delay(failures), min(error.wait_seconds, _LONGEST_WAIT))
            say(f"{name}: {error}; try {failures + 1} of {patience.tries} in {wait:.0f} s")
            patience.sleep(wait)


def probe(url: str, patience: Patience, say: Say) -> Remote:
    """What there is at `url`. Raises UserError where it cannot be had."""

    def ask() -> Remote:
        # A GET whose body is left unread: some mirrors answer no HEAD.
        with open_url(url, {}, patience.timeout_seconds) as response:
            return offer_of(url, response)

    return persist(ask, patience, say, url.rpartition("/")[2])


def open_url(url: str, headers: dict[str, str], timeout_seconds: float) -> HTTPResponse:
    """The answer to a GET, read up to its headers; redirects and proxies are followed.

    Raises TryAgainError, BeyondEndError, or UserError where another try is of no use.
    """
    try:
        request = Request(url, headers={"User-Agent": "pix2pix", **headers})
        return urlopen(request, timeout=timeout_seconds)
    except HTTPError as error:
        with error:
            raise _refusal(url, error) from error
    except URLError as error:
        reason = error.reason
        unknown_host = isinstance(reason, gaierror) and reason.errno == EAI_NONAME
        if unknown_host or isinstance(reason, ssl.SSLCertVerificationError):
            raise UserError(f"{url} cannot be reached: {_text(reason)}") from error
        raise TryAgainError(f"no connection ({_text(reason)})") from error
    except (InvalidURL, ValueError) as error:
        raise UserError(f"{url} is no address of a file: {error}") from error
    except (OSError, HTTPException) as error:
        raise TryAgainError(f"no answer ({_text(error)})") from error


def _refusal(url: str, error: HTTPError) -> Exception:
    if error.code == 416:
        return BeyondEndError(_total_of_range(error.headers))
    answer = f"the server answered {error.code} {error.reason}"
    if error.code in _PASSING:
        return TryAgainError(answer, _retry_after(error.headers))
    return UserError(f"{url} cannot be had: {answer}")


def chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The body as it comes, until it ends in whatever way but a failure."""
    while True:
        try:
            data = response.read1(_CHUNK)
        except TimeoutError as error:
            raise TryAgainError("the server fell silent") from error
        except (OSError, HTTPException) as error:
            raise TryAgainError(f"the connection was cut ({_text(error)})") from error
        if not data:
            return
        yield data


def offer_of(url: str, response: HTTPResponse) -> Remote:
    """What an answer, whole or partial, says of the whole file."""
    headers = response.headers
    if response.status == 206:
        num_bytes = _total_of_range(headers)
    else:
        length = headers.get("Content-Length", "")
        num_bytes = int(length) if length.isdecimal() else None
    return Remote(url, num_bytes, headers.get("ETag"), headers.get("Last-Modified"))


def range_start(headers: Message) -> int | None:
    """The first byte that a partial answer holds, as it says."""
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _total_of_range(headers: Message) -> int | None:
    match = re.match(r"bytes .*/(\d+)$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(headers: Message) -> float:
    """Seconds, given as such or as a date (RFC 9110, 10.2.3); 0 where nothing is asked for."""
    value = headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return 0.0


def _text(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
