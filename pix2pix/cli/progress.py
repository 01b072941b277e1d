"""Progress on stderr: a bar on a terminal, a line every 30 seconds in a log."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

LINE_EVERY_SECONDS = 30.0


def progress(
    unit: str,
    total: int | None = None,
    items: Iterable[object] | None = None,
    *,
    title: str | None = None,
    done: int = 0,
    leave: bool = False,
    hidden: bool = False,
) -> tqdm:
    """Start a progress display; `update(count)` it, or iterate over it where `items` are given.

    Use it as a context manager, which removes the bar at the end.

    Args:
        unit: what is counted, in the plural; "bytes" are shown as kB, MB or GB.
        total: how many there are; None where nobody knows, or `items` know.
        items: what to iterate over.
        title: stands at the start of the line.
        done: how many of `total` are there already. They do not count for the rate.
        leave: keep the finished bar on the terminal.
        hidden: show nothing, as on the ranks that are not the main one.
    """
    is_watched = sys.stderr.isatty()
    in_bytes = unit == "bytes"
    return (tqdm if is_watched else _Lines)(
        items,
        title,
        total,
        initial=done,
        unit="B" if in_bytes else f" {unit}",
        unit_scale=in_bytes,
        ncols=80 if is_watched else 0,  # 0: figures without a bar
        leave=leave and is_watched,
        disable=hidden,
        **({} if is_watched else _SELDOM),
    )


def say(line: str) -> None:
    """Print a line on stderr, above the bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def bytes_text(count: int) -> str:
    """Return a size as "19.3 GB": decimal units, as disks and downloads are sold."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


# miniters: look at the clock at every update. tqdm's own guess, from the rate so far, would skip
# the line of a download that slows down.
_SELDOM = {"mininterval": LINE_EVERY_SECONDS, "delay": LINE_EVERY_SECONDS, "miniters": 1}


class _Lines(tqdm):
    """Progress in a log: each state is a line that stays, and none comes before its time."""

    monitor_interval = 0  # no thread that redraws what is slow
    last_print_t: float  # seconds, as `_time` has them

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print the state, at most once in 30 seconds; tqdm asks after each `write`, too.

        Returns:
            False: there is nothing on the line to clear.
        """
        if msg is None and self._time() - self.last_print_t >= LINE_EVERY_SECONDS:
            print(self, file=sys.stderr, flush=True)
            self.last_print_t = self._time()
        return False

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: lines are not redrawn."""
