"""One file from a web server: resumed by range, tried again with back-off, checked, renamed.

What has come of a file lies beside it as `.NAME.VERSION.part`. VERSION tells which bytes the server
offered, so parts of two versions never mix, and there is nothing else to keep.
"""

from collections.abc import Callable
from glob import escape
from hashlib import sha256
from http.client import HTTPResponse
from pathlib import Path

from data_prep.progress import Progress, bytes_text
from data_prep.web import (
    BeyondEndError,
    Patience,
    Remote,
    TryAgainError,
    chunks,
    offer_of,
    open_url,
    persist,
    range_start,
)
from pix2pix.errors import UserError
from pix2pix.system.durable import flush


class DamagedError(ValueError):
    """What has come is not what it should be. For the `check` of `fetch` to raise."""


def part_path(target: Path, remote: Remote) -> Path:
    """Where the bytes of this version are gathered."""
    version = sha256(repr(remote).encode()).hexdigest()[:8]
    return target.parent / f".{target.name}.{version}.part"


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def fetch(
    remote: Remote,
    target: Path,
    check: Callable[[Path], None],
    patience: Patience,
    progress: Progress,
) -> None:
    """Put what `remote` offers at `target`, once `check` finds no damage in it.

    Goes on where an earlier call was stopped. If `check` raises DamagedError, all is got anew,
    once. Raises UserError where the server does not give the file, or not whole, and OSError of
    the disk.
    """
    for is_last in (False, True):
        part = _Transfer(remote, target, patience, progress).run()
        try:
            check(part)
        except DamagedError as error:
            part.unlink()
            if is_last:
                raise UserError(
                    f"{remote.url} came damaged, twice now ({error}); try later, or another server"
                ) from error
            progress.say(f"{target.name} came damaged ({error}); getting it again")
        else:
            flush(part)
            part.replace(target)
            flush(target.parent)
            return


class _Transfer:
    """Gathers the bytes of one file in its part."""

    def __init__(
        self, remote: Remote, target: Path, patience: Patience, progress: Progress
    ) -> None:
        self.remote, self.target = remote, target
        self.patience, self.progress = patience, progress

    @property
    def part(self) -> Path:
        return part_path(self.target, self.remote)

    def run(self) -> Path:
        """The part, with every byte that the server has. Raises UserError, OSError of the disk."""
        self._drop_other_versions()
        name = self.target.name
        persist(self._attempt, self.patience, self.progress.say, name, lambda: size_of(self.part))
        return self.part

    def _attempt(self) -> None:
        have = size_of(self.part)
        if have and have == self.remote.num_bytes:
            return
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.remote.validator is not None:
                headers["If-Range"] = self.remote.validator
        try:
            response = open_url(self.remote.url, headers, self.patience.timeout_seconds)
        except BeyondEndError as error:
            if have and error.num_bytes == have:  # the server had announced too many
                return
            raise self._start_over("the server does not have the rest") from None
        with response:
            offer = offer_of(self.remote.url, response)
            if response.status != 206:  # all of it: changed, or the server knows no ranges
                self._take(offer, have)
                self._write(response, 0, offer.num_bytes)
            elif range_start(response.headers) == have and offer.agrees_with(self.remote):
                self._write(response, have, offer.num_bytes)
            else:
                raise self._start_over("another part came than was asked for")

    def _take(self, offer: Remote, have: int) -> None:
        """From now on, gather this version from its first byte."""
        if have and offer == self.remote:
            self.progress.say(f"{self.target.name}: the server does not resume; starting over")
        self.remote = offer
        self._drop_other_versions()

    def _write(self, response: HTTPResponse, start: int, total: int | None) -> None:
        self.progress.begin(start, total, self.target.name)
        with self.part.open("r+b" if self.part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            for data in chunks(response):
                file.write(data)
                self.progress.advance(len(data))
            end = file.tell()
        if total is not None and end < total:
            raise TryAgainError(f"the connection ended after {bytes_text(end)}")

    def _start_over(self, reason: str) -> TryAgainError:
        self.part.unlink(missing_ok=True)
        return TryAgainError(f"{reason}; starting over")

    def _drop_other_versions(self) -> None:
        for part in self.target.parent.glob(f".{escape(self.target.name)}.*.part"):
            if part != self.part:
                self.progress.say(
                    f"{self.target.name}: the server has another version than the "
                    f"{bytes_text(size_of(part))} that had come; starting over"
                )
                part.unlink()
