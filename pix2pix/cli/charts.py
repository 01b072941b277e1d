"""Charts for sheets and reports: histograms, a curve, bars with names.

matplotlib draws them, and is imported only then: that takes half a second. The letters of contact
sheets are Pillow's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#222222", "#6b6b6b", "#e4e4e4"
BAR, MARK = "#5b84b1", "#c8553d"

_DPI = 100
_TITLE, _TEXT = 13, 10  # sizes of letters, points
_MOST_BINS = 64


class Mark(NamedTuple):
    """A vertical line at a value, with its label."""

    value: float
    label: str


def new_figure(width: int, height: int) -> Figure:
    """Return an empty figure of this size in pixels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
    return Figure((width / _DPI, height / _DPI), dpi=_DPI, layout=layout)


def picture_of(figure: Figure) -> Image.Image:
    """Return a figure as a picture of mode RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def chart(size: tuple[int, int], draw: Callable[[Axes], None]) -> Image.Image:
    """Return a picture of this size, pixels, with what `draw` draws."""
    figure = new_figure(*size)
    draw(figure.subplots())
    return picture_of(figure)


def png(picture: Image.Image) -> bytes:
    """Return the picture as a file."""
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def draw_histogram(
    axes: Axes,
    title: str,
    label: str,
    values: Sequence[float],
    marks: Sequence[Mark] = (),
    lowest: float | None = None,
    least_span: float = 10.0,
) -> None:
    """Draw how often values occur, in bins of a round width; marks beyond the bars widen the axis.

    The bins end where all but the highest 0.5 % are in, so that one panorama does not press the
    others together; the last bar holds these, too, and the label says how many.

    Args:
        axes: where to.
        title: stands above.
        label: what is measured, with its unit.
        values: at least one; the more, the narrower the bins.
        marks: vertical lines.
        lowest: where the bins begin; None: at the smallest value.
        least_span: of the bins, above 0, or the bar of equal values would be a hair.
    """
    edges = bin_edges(values, lowest, least_span)
    counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
    filled = counts > 0  # their outline shows one in thousands, too
    axes.bar(
        edges[:-1][filled],
        counts[filled],
        0.92 * np.diff(edges)[filled],
        align="edge",
        color=BAR,
        edgecolor=BAR,
        zorder=3,  # above the axis, which would hide the outline of a low bar
        clip_on=False,
    )
    num_beyond = int((np.asarray(values) > edges[-1]).sum())
    if num_beyond:
        label += f" (the last bar holds {num_beyond:,} from beyond)"
    _finish(axes, title, label)
    axes.locator_params("y", integer=True)
    _draw_marks(axes, marks)


def bin_edges(
    values: Sequence[float], lowest: float | None = None, least_span: float = 10.0
) -> np.ndarray:
    """Return round edges, from the lowest value to above all but the highest 0.5 %."""
    from matplotlib.ticker import MaxNLocator

    low = min(values) if lowest is None else lowest
    high = max(float(np.percentile(values, 99.5)), low + least_span)
    most = max(1, min(_MOST_BINS, int(3 * len(values) ** 0.5)))
    return np.asarray(MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high))


def draw_curve(
    axes: Axes,
    title: str,
    label: str,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    marks: Sequence[Mark] = (),
) -> None:
    """Draw points joined by lines; label: what x is; names: of each point, some may be empty."""
    axes.plot(*zip(*points, strict=True), color=BAR, marker="o")
    for point, name in zip(points, names, strict=True):
        axes.annotate(
            name, point, (0, 6), textcoords="offset points", color=INK, fontsize=_TEXT, ha="center"
        )
    axes.margins(y=0.2)
    _finish(axes, title, label)
    _draw_marks(axes, marks)


def draw_bars(axes: Axes, title: str, counts: dict[str, int], of: int) -> None:
    """Draw a bar for each name, with its count and share of `of`, the largest first."""
    ordered = dict(sorted(counts.items(), key=lambda row: (-row[1], row[0])))
    bars = axes.barh(range(len(ordered)), list(ordered.values()), 0.6, color=BAR)
    axes.set_yticks(range(len(ordered)), list(ordered))
    axes.bar_label(bars, [f" {count:,} ({count / of:.1%})" for count in ordered.values()])
    axes.set_ylim(max(len(ordered), 5) - 0.5, -0.5)
    axes.margins(x=0.35)
    _finish(axes, title, "")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelbottom=False, labelcolor=INK)


def _finish(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", fontsize=_TITLE, color=INK)
    axes.set_xlabel(label, fontsize=_TEXT, color=SOFT)
    axes.tick_params(colors=SOFT, labelsize=_TEXT)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draw each line with its label above the plot's content, the leftmost one's the highest."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.12 * len(marks) * (top - bottom))
    for number, mark in enumerate(sorted(marks)):
        height = 1 - 0.1 * number
        axes.axvline(mark.value, 0, height, color=MARK, linewidth=1.5, zorder=4)
    low, high = axes.get_xlim()
    for number, mark in enumerate(sorted(marks)):
        on_the_right = mark.value > low + 0.7 * (high - low)
        axes.annotate(
            mark.label,
            (mark.value, 1 - 0.1 * number),
            (-4 if on_the_right else 4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=MARK,
            fontsize=_TEXT,
            ha="right" if on_the_right else "left",
            va="top",
            zorder=5,
            bbox={"color": "white", "pad": 0.5, "alpha": 0.8},
        )


@lru_cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def shorten(text: str, size: int, width: int) -> str:
    """Return the end of `text` that fits into `width` pixels: of a path, that is the name."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"
