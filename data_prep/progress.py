"""How far it is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_LINE_EVERY_SECONDS = 30.0


class Progress:
    """Counts `unit`s on stderr, with rate and time left. A context manager."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._bar: tqdm | None = None

    def begin(self, done: int, total: int) -> None:
        """Start the clock, `done` of `total` being there already."""
        self.done, self.total = done, total
        self._first = done
        self._started = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            unit = f" {self.unit}"
            self._bar = tqdm(initial=done, total=total, unit=unit, ncols=80, leave=False)

    def advance(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        rate = (self.done - self._first) / (time.monotonic() - self._started)
        left = f"{(self.total - self.done) / rate / 60:.0f} min left" if rate else "no end in sight"
        return f"{self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} per second, {left}"

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
