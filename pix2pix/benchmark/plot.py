"""A benchmark's report as a picture: bars side by side, and what was measured where."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pix2pix.benchmark.charts import CHARTS, TITLES, Chart, Row, amount, rows
from pix2pix.cli.charts import BAR, INK, MARK, SOFT, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 960  # pixels
_TITLE, _BAR, _LINE = 60, 32, 18  # heights of a chart's title, of a bar with its gap, of a line
_OTHERS = "#b8bec6"


def draw_report(report: Mapping[str, Any]) -> Figure:
    """Return one report, as `report.py` writes it, as a figure."""
    charts = [
        (chart, drawn)
        for chart in CHARTS[report["benchmark"]]
        if (drawn := list(rows(chart, report)))
    ]
    foot = _foot(report)
    heights = [_TITLE + len(drawn) * _BAR for _, drawn in charts]
    figure = new_figure(WIDTH, 86 + sum(heights) + len(foot) * _LINE)
    figure.suptitle(TITLES[report["benchmark"]], x=0.02, ha="left", fontsize=20, color=INK)
    places = figure.subplots(len(charts), height_ratios=heights, squeeze=False)
    for axes, (chart, drawn) in zip(places[:, 0], charts, strict=True):
        _draw_chart(axes, chart, drawn)
    figure.supxlabel("\n".join(foot), x=0.02, ha="left", fontsize=10, color=SOFT)
    return figure


def _draw_chart(axes: Axes, chart: Chart, drawn: list[Row]) -> None:
    numbers = range(len(drawn))
    values = [row.value for row in drawn]
    colors = [_OTHERS if chart.compared and number else BAR for number in numbers]
    bars = axes.barh(
        numbers,
        values,
        0.6,
        xerr=[row.value * row.spread / 2 for row in drawn],
        color=colors,
        error_kw={"ecolor": MARK, "elinewidth": 2},
    )
    axes.bar_label(bars, [amount(value, chart.unit) for value in values], padding=8, color=INK)
    for number, row in enumerate(drawn):
        place = (1, number)
        axes.annotate(
            row.note, place, xycoords=("axes fraction", "data"), ha="right", va="center", color=SOFT
        )
    axes.set_title(chart.title, loc="left", fontsize=13, color=INK)
    axes.set_yticks(numbers, [row.label for row in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlim(0, 2 * max(values))  # the right half is for figures and notes
    axes.tick_params(length=0, labelsize=10, labelbottom=False, labelcolor=INK)
    axes.spines[:].set_visible(False)


def _foot(report: Mapping[str, Any]) -> list[str]:
    """Return what is no bar: settings, versions and the device; a line says what the marks are."""
    settings = {
        k: v for k, v in report.items() if isinstance(v, int | str) and not _is_shown(k, report)
    }
    device, versions = str(settings.pop("device")), []
    for name in [name for name in settings if name.endswith("_version")]:
        versions.append(f"{name.removesuffix('_version')} {settings.pop(name)}")
    settings.pop("benchmark")
    told = [
        f"{name.replace('_', ' ')} {f'{value:,}' if isinstance(value, int) else value}"
        for name, value in settings.items()
    ]
    words = [", ".join(told), ", ".join([device, *versions])]
    words.append("medians; a red line is as long as the slowest and the fastest round are apart")
    return [line for text in words for line in textwrap.wrap(text, 125)]


def _is_shown(figure: str, report: Mapping[str, Any]) -> bool:
    bars = (bar for chart in CHARTS[report["benchmark"]] for bar in chart.bars)
    return any(figure == bar.figure for bar in bars)
