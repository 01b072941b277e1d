"""One file from a web server, by the curl program: resumed, tried again, checked, renamed.

What has come of a file lies beside it as `.NAME.part`. Proxies and certificates are curl's matter.
"""

import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pix2pix.cli.progress import progress, say
from pix2pix.errors import UserError
from pix2pix.system.durable import flush

_CURL = ("curl", "--silent", "--show-error", "--fail", "--location", "--globoff", "--no-buffer")
_CHUNK = 2**20  # bytes that are asked for at once; what is there of them is taken
_LONGEST_WAIT = 600.0  # seconds, whatever a server asks for

# Exit statuses of curl(1), and answers of a server, that another try may mend. A name that does not
# resolve may be a misspelt one: it is tried again only where something has come already.
_UNKNOWN_HOST, _CANNOT_RESUME = 6, 33
_PASSING = (7, 16, 18, 28, 35, 52, 55, 56, 92)  # no connection, cut, silent, TLS, HTTP/2
_PASSING_ANSWERS = (408, 425, 429, 500, 502, 503, 504)
_BEYOND_END = 416
_NO_HEAD = (405, 501)  # answers of a server that tells no sizes


@dataclass(frozen=True)
class Patience:
    """How often to try without getting any further; whatever has come starts the count anew.

    These figures sit out five to ten minutes without a network.

    Attributes:
        tries: connections that bring nothing before it is given up.
        first_seconds: the wait after the first of them, doubled after each.
        most_seconds: the longest wait that is not the server's wish.
        timeout_seconds: of silence, after which a connection counts as dead.
        sleep: waits so many seconds.
    """

    tries: int = 12
    first_seconds: float = 1.0
    most_seconds: float = 120.0
    timeout_seconds: int = 30
    sleep: Callable[[float], None] = time.sleep

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after so many failures (from 1), less up to a half.

        By chance, so that the clients of a server that was down do not come back all at once.
        """
        longest = min(self.most_seconds, self.first_seconds * 2.0 ** (failures - 1))
        return longest * random.uniform(0.5, 1.0)


class DamagedError(ValueError):
    """What has come is not what it should be. For the `check` of `fetch` to raise."""


def part_path(target: Path) -> Path:
    """Return where the bytes of `target` are gathered."""
    return target.parent / f".{target.name}.part"


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def ask_size(url: str, patience: Patience) -> int | None:
    """Return how many bytes the server has at `url`, or None where it does not say.

    Raises:
        UserError: it has no such file, or curl is not installed.
    """
    headers = bytearray()
    end = _run_curl(("--head", url), patience, headers.extend)
    if end.status and not end.may_pass and end.answer not in _NO_HEAD:
        raise UserError(f"{url} cannot be had: {end.message}")
    lengths = re.findall(rb"(?im)^content-length: *(\d+)", headers)
    return int(lengths[-1]) if lengths and not end.status else None  # of the last redirect


def fetch(
    url: str,
    target: Path,
    check: Callable[[Path], None],
    patience: Patience,
    num_bytes: int | None = None,
) -> None:
    """Download `url` to `target`, once `check` finds no damage in it.

    Goes on where an earlier call was stopped, with progress on stderr. If `check` raises
    DamagedError, as for a file that changed on the server, all is got anew, once.

    Args:
        url: address of the file.
        target: path of the finished file; nothing else is left beside it.
        check: is given the complete file.
        patience: how often to try.
        num_bytes: what the server says that there is, for the progress.

    Raises:
        UserError: the server does not give the file, or not whole.
        OSError: the disk is full or broken.
    """
    part = part_path(target)
    for is_last in (False, True):
        with progress("bytes", num_bytes, title=target.name, done=size_of(part)) as bar:
            _gather(url, part, target.name, patience, bar)
        try:
            check(part)
        except DamagedError as error:
            part.unlink()
            if is_last:
                raise UserError(
                    f"{url} came damaged, twice now ({error}); try later, or another server"
                ) from error
            say(f"{target.name} came damaged ({error}); getting it again")
        else:
            flush(part)
            part.replace(target)
            flush(target.parent)
            return


def _gather(url: str, part: Path, name: str, patience: Patience, bar: tqdm) -> None:
    """Fill `part` with every byte that the server has, in as many tries as it takes."""
    failures = furthest = 0
    while True:
        end = _append(url, part, patience, bar)
        have = size_of(part)
        if not end.status or (end.answer == _BEYOND_END and have):  # no more: `check` judges it
            return
        if end.status == _CANNOT_RESUME:
            part.unlink()
        elif not end.may_pass and not (end.status == _UNKNOWN_HOST and have):
            raise UserError(f"{url} cannot be had: {end.message}")
        if have > furthest:
            failures, furthest = 0, have
        failures += 1
        if failures >= patience.tries:
            raise UserError(
                f"{name}: {end.message}. Given up after {failures} tries; the same command "
                "goes on from here later"
            )
        wait = max(patience.delay(failures), end.wait_seconds)
        say(f"{name}: {end.message}; try {failures + 1} of {patience.tries} in {wait:.0f} s")
        patience.sleep(wait)


def _append(url: str, part: Path, patience: Patience, bar: tqdm) -> "_End":
    """Append what is missing of `part`, by curl."""
    with part.open("ab") as file:

        def take(data: bytes) -> None:
            file.write(data)
            file.flush()  # who is killed loses nothing
            bar.update(len(data))

        have = file.tell()
        bar.update(have - bar.n)
        resume = ("--continue-at", str(have)) if have else ()
        return _run_curl((*resume, "--dump-header", "/dev/stderr", url), patience, take)


@dataclass(frozen=True)
class _End:
    """How a run of curl ended.

    Attributes:
        status: curl's exit status.
        told: what it wrote on stderr, and the server's headers.
    """

    status: int
    told: str

    @property
    def message(self) -> str:
        if self.status == _CANNOT_RESUME:
            return "the server does not resume; starting over"
        messages = re.findall(r"(?m)^curl: \(\d+\) (.+?)\r?$", self.told)
        return messages[-1] if messages else f"curl ended with status {self.status}"

    @property
    def answer(self) -> int:
        """Return the server's status, 0 where it did not answer."""
        answers = re.findall(r"returned error: (\d+)", self.message)
        return int(answers[-1]) if answers else 0

    @property
    def may_pass(self) -> bool:
        return self.status in (*_PASSING, _CANNOT_RESUME) or self.answer in _PASSING_ANSWERS

    @property
    def wait_seconds(self) -> float:
        """Return the wait that the server asks for (RFC 9110, 10.2.3), if given in seconds."""
        waits = re.findall(r"(?im)^retry-after: *(\d+)", self.told)
        return min(float(waits[-1]), _LONGEST_WAIT) if waits else 0.0


def _run_curl(
    arguments: tuple[str, ...], patience: Patience, take: Callable[[bytes], None]
) -> _End:
    """Run curl, and hand what it sends to `take`.

    Its own --retry throws away what the failed try brought, so each try is a run of its own. It
    writes into a pipe: so it ends with this process, however that ends.
    """
    seconds = str(patience.timeout_seconds)
    limits = ("--connect-timeout", seconds, "--speed-limit", "1", "--speed-time", seconds)
    command = [*_CURL, *limits, *arguments]
    try:
        curl = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise UserError(
            "downloads need the program curl; install it (apt-get install curl)"
        ) from None
    assert curl.stdout is not None
    assert curl.stderr is not None
    with curl:
        try:
            while data := os.read(curl.stdout.fileno(), _CHUNK):
                take(data)
            told = curl.stderr.read().decode(errors="replace")
            return _End(curl.wait(), told)
        finally:
            curl.kill()  # of use where `take` raised, or Ctrl-C came
