"""How far it is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_LINE_EVERY_SECONDS = 30.0


class Progress:
    """Counts `unit`s on stderr, with rate and time left. A context manager.

    unit: "bytes" are shown as kB, MB or GB.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._bar: tqdm | None = None

    def begin(self, done: int, total: int | None, title: str = "") -> None:
        """Start the clock, `done` of `total` being there already; again, for another `title`.

        total: None where nobody knows.
        """
        self._close()
        self.done, self.total, self._title = done, total, title
        self._first = done
        self._started = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            in_bytes = self.unit == "bytes"
            unit = "B" if in_bytes else f" {self.unit}"
            self._bar = tqdm(
                desc=title or None,
                initial=done,
                total=total,
                unit=unit,
                unit_scale=in_bytes,
                ncols=80,
                leave=False,
            )

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bar if there is one."""
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()

    def _line(self) -> str:
        rate = (self.done - self._first) / (time.monotonic() - self._started)
        of = "" if self.total is None else f" of {self._amount(self.total)}"
        if self.total is not None and rate:
            left = f"{(self.total - self.done) / rate / 60:.0f} min left"
        else:
            left = "no end in sight"
        title = f"{self._title}: " if self._title else ""
        unit = "" if self.unit == "bytes" else f" {self.unit}"
        rate_text = self._amount(round(rate))
        return f"{title}{self._amount(self.done)}{of}{unit}, {rate_text} per second, {left}"

    def _amount(self, count: int) -> str:
        return bytes_text(count) if self.unit == "bytes" else f"{count:,}"

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()


def bytes_text(count: int) -> str:
    """As a person says it, "19.3 GB": decimal units, as disks and downloads are sold."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
