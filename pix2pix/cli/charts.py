"""Charts drawn with Pillow: a histogram, a curve, and bars with names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

INK, SOFT, GRID = "#222222", "#6b6b6b", "#e4e4e4"
BAR, MARK = "#5b84b1", "#c8553d"
TITLE, TEXT = 20, 15  # heights of letters, pixels

_HEAD = TITLE + 14  # above the plot
_LINE = TEXT + 4
_FOOT = 2 * _LINE + 8  # below it: tick labels and the axis
_LEFT = 52  # of it: counts
_MOST_BINS = 64


@lru_cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class Histogram:
    """counts: [N], how many values lie from edges[i] to below edges[i + 1]; edges: [N + 1].

    Values beyond the last edge are in the last bin; num_beyond says how many.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    num_beyond: int


@dataclass(frozen=True)
class Mark:
    """A vertical line at a value, with a word about it."""

    value: float
    label: str


def draw_histogram(
    draw: ImageDraw.ImageDraw,
    box: Box,
    title: str,
    axis: str,
    data: Histogram,
    marks: Sequence[Mark] = (),
) -> None:
    """Bars within `box`; axis: what is measured, with its unit. Marks beyond the bars widen it."""
    left, top, right, bottom = box
    draw.text((left, top), title, INK, font(TITLE))
    left, top, bottom = left + _LEFT, top + _HEAD, bottom - _FOOT
    top_of_bars = top + len(marks) * _LINE
    values = [*data.edges[[0, -1]], *(mark.value for mark in marks)]
    low, high = min(values), max(values)
    ticks = [tick for tick in round_ticks(0, int(data.counts.max()), 4) if tick.is_integer()]
    roof = max(*ticks, int(data.counts.max()))

    def x(value: float) -> int:
        return round(left + (value - low) / (high - low) * (right - left))

    def y(count: float) -> int:
        return round(bottom - count / roof * (bottom - top_of_bars))

    for tick in ticks:
        draw.line((left, y(tick), right, y(tick)), GRID)
        draw.text((left - 8, y(tick)), f"{tick:,.0f}", SOFT, font(TEXT), anchor="rm")
    for count, start, end in zip(data.counts, data.edges[:-1], data.edges[1:], strict=True):
        if count:
            height = min(y(count), bottom - 1)  # one in thousands is seen, too
            draw.rectangle((x(start) + 1, height, max(x(start) + 1, x(end) - 1), bottom), BAR)
    draw.line((left, bottom, right, bottom), SOFT)
    for tick in round_ticks(low, high, 6):
        draw.line((x(tick), bottom, x(tick), bottom + 4), SOFT)
        draw.text((x(tick), bottom + 7), f"{tick:,g}", SOFT, font(TEXT), anchor="ma")
    if data.num_beyond:
        axis += f" (the last bar holds {data.num_beyond:,} from beyond)"
    draw.text(((left + right) // 2, bottom + _LINE + 8), axis, SOFT, font(TEXT), anchor="ma")
    _draw_marks(draw, (left, top, right, bottom), marks, x)


def _draw_marks(
    draw: ImageDraw.ImageDraw, plot: Box, marks: Sequence[Mark], x: Callable[[float], int]
) -> None:
    _, top, right, bottom = plot
    # The leftmost one's word lies highest, so that no line of another runs through it; where there
    # is no room for it to the right of its line, it is drawn over the others'.
    ordered = sorted(marks, key=lambda mark: mark.value)
    for number, mark in enumerate(ordered):
        draw.line((x(mark.value), top + number * _LINE, x(mark.value), bottom), MARK, 2)
    for number, mark in enumerate(ordered):
        start, line_top = x(mark.value), top + number * _LINE
        fits = right - start > font(TEXT).getlength(mark.label) + 6
        place = (start + (6 if fits else -6), line_top)
        anchor = "la" if fits else "ra"
        draw.text(place, mark.label, MARK, font(TEXT), anchor, stroke_width=3, stroke_fill="white")


def draw_curve(
    draw: ImageDraw.ImageDraw,
    box: Box,
    title: str,
    axes: tuple[str, str],
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    marks: Sequence[Mark] = (),
) -> None:
    """Points joined by lines within `box`; axes: what x and y are; labels: a word for each point,
    which may be empty; marks: vertical lines at values of x.
    """
    left, top, right, bottom = box
    draw.text((left, top), f"{title}: {axes[1]}", INK, font(TITLE))
    left, top, bottom = left + _LEFT, top + _HEAD, bottom - _FOOT
    xs, ys = zip(*points, strict=True)
    ends = [*xs, *(mark.value for mark in marks)]
    x_low, x_span = min(ends), (max(ends) - min(ends)) or 1.0
    y_low, y_span = min(ys), (max(ys) - min(ys)) or 1.0
    top_of_curve = top + (len(marks) + 1) * _LINE

    def x(value: float) -> int:
        return round(left + (value - x_low) / x_span * (right - left))

    def y(value: float) -> int:
        return round(bottom - (value - y_low) / y_span * (bottom - top_of_curve))

    for tick in round_ticks(y_low, y_low + y_span, 4):
        draw.line((left, y(tick), right, y(tick)), GRID)
        draw.text((left - 8, y(tick)), f"{tick:,g}", SOFT, font(TEXT), anchor="rm")
    draw.line((left, bottom, right, bottom), SOFT)
    for tick in round_ticks(x_low, x_low + x_span, 6):
        draw.line((x(tick), bottom, x(tick), bottom + 4), SOFT)
        draw.text((x(tick), bottom + 7), f"{tick:,g}", SOFT, font(TEXT), anchor="ma")
    draw.text(((left + right) // 2, bottom + _LINE + 8), axes[0], SOFT, font(TEXT), anchor="ma")
    _draw_marks(draw, (left, top, right, bottom), marks, x)
    draw.line([(x(one), y(other)) for one, other in points], BAR, 2)
    for (one, other), label in zip(points, labels, strict=True):
        place = (x(one), y(other))
        draw.ellipse((place[0] - 4, place[1] - 4, place[0] + 4, place[1] + 4), BAR)
        anchor = "rb" if place[0] > (left + right) / 2 else "lb"
        draw.text((place[0], place[1] - 6), label, INK, font(TEXT), anchor)


def draw_bars(
    draw: ImageDraw.ImageDraw, box: Box, title: str, rows: dict[str, int], of: int
) -> None:
    """A bar for each name, with its count and share of `of`, the largest first."""
    left, top, right, bottom = box
    draw.text((left, top), title, INK, font(TITLE))
    ordered = sorted(rows.items(), key=lambda row: (-row[1], row[0]))
    pitch = min(44, (bottom - top - _HEAD) // max(1, len(rows)))
    for number, (name, count) in enumerate(ordered):
        y = top + _HEAD + number * pitch
        draw.text((left, y), name, INK, font(TEXT))
        text = f"{count:,} ({count / of:.1%})"
        draw.text((right, y), text, SOFT, font(TEXT), anchor="ra")
        width = (right - left) * count / ordered[0][1]
        draw.rectangle((left, y + TEXT + 5, left + max(2, width), y + TEXT + 12), BAR)


def histogram(
    values: Sequence[float], lowest: float | None = None, least_span: float = 10.0
) -> Histogram:
    """Counts in bins of a round width (1, 2 or 5 times a power of ten), from `lowest` on.

    values: at least one; the more, the narrower the bins. The last one ends where all
    but the highest 0.5 % are in, so that one panorama does not press the others together.
    least_span: of the axis, above 0, or the bar of equal values would be a hair.
    """
    array = np.asarray(values, dtype=np.float64)
    first = array.min() if lowest is None else lowest
    last = np.percentile(array, 99.5)
    width = round_step(max(last - first, least_span) / min(_MOST_BINS, 3 * len(array) ** 0.5))
    start = np.floor(first / width)
    num_bins = int(np.floor(last / width) - start) + 1
    edges = (start + np.arange(num_bins + 1)) * width
    bins = np.floor(array / width - start).astype(np.int64)
    counts = np.bincount(np.minimum(bins, num_bins - 1), minlength=num_bins)
    return Histogram(edges, counts, int((bins >= num_bins).sum()))


def round_step(least: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is at least `least` (above 0)."""
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(n * power for n in (1, 2, 5, 10) if n * power >= least))


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """The multiples of a round step from `low` to `high` (above it), at most `most` + 1."""
    step = round_step((high - low) / most)
    return [n * step for n in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def shorten(text: str, size: int, width: int) -> str:
    """The end of `text` that fits into `width` pixels: of a path, that is the name."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"
