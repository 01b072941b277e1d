"""A benchmark's report as a picture: bars side by side, and what was measured where."""

import textwrap
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from pix2pix.benchmark.charts import CHARTS, TITLES, Chart, Row, amount, rows
from pix2pix.cli.charts import BAR, INK, MARK, SOFT, TEXT, TITLE, font

WIDTH, MARGIN = 960, 28  # pixels
_LABELS = 190  # left of the bars
_BARS = 370  # the longest of them
_PITCH, _THICK = 30, 18  # from bar to bar; of a bar
_LINE = TEXT + 5
_OTHERS = "#b8bec6"
_HEADLINE = 28


def draw_report(report: Mapping[str, Any]) -> bytes:
    """PNG of one report, as `report.py` writes it."""
    return png(picture_of(report))


def picture_of(report: Mapping[str, Any]) -> Image.Image:
    """The same as a picture of mode RGB."""
    charts = [
        (chart, drawn)
        for chart in CHARTS[report["benchmark"]]
        if (drawn := list(rows(chart, report)))
    ]
    foot = _foot(report)
    top = MARGIN + _HEADLINE + 20
    height = top + sum(_height(drawn) for _, drawn in charts) + len(foot) * _LINE + MARGIN
    picture = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), TITLES[report["benchmark"]], INK, font(_HEADLINE))
    for chart, drawn in charts:
        _draw_chart(draw, top, chart, drawn)
        top += _height(drawn)
    for number, line in enumerate(foot):
        draw.text((MARGIN, top + number * _LINE), line, SOFT, font(TEXT))
    return picture


def png(picture: Image.Image) -> bytes:
    """The picture as a file."""
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _height(drawn: list[Row]) -> int:
    return TITLE + 14 + len(drawn) * _PITCH + 22


def _draw_chart(draw: ImageDraw.ImageDraw, top: int, chart: Chart, drawn: list[Row]) -> None:
    draw.text((MARGIN, top), chart.title, INK, font(TITLE))
    left = MARGIN + _LABELS
    longest = max(row.value * (1 + row.spread / 2) for row in drawn)
    for number, row in enumerate(drawn):
        y = top + TITLE + 14 + number * _PITCH
        middle = y + _THICK // 2

        def x(value: float) -> float:
            return left + _BARS * value / longest

        ours = not chart.compared or number == 0
        draw.text((MARGIN, middle), row.label, INK, font(TEXT), anchor="lm")
        draw.rectangle((left, y, max(left + 1, x(row.value)), y + _THICK), BAR if ours else _OTHERS)
        low, high = (x(row.value * (1 + sign * row.spread / 2)) for sign in (-1, 1))
        if row.spread:
            draw.line((low, middle, high, middle), MARK, 2)
        text = amount(row.value, chart.unit)
        end = max(x(row.value), high) + 10
        draw.text((end, middle), text, INK, font(TEXT), anchor="lm")
        draw.text((WIDTH - MARGIN, middle), row.note, SOFT, font(TEXT), anchor="rm")


def _foot(report: Mapping[str, Any]) -> list[str]:
    """What is no bar: settings, versions and the device; a line says what the marks are."""
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
    return [line for text in words for line in textwrap.wrap(text, 118)]


def _is_shown(figure: str, report: Mapping[str, Any]) -> bool:
    bars = (bar for chart in CHARTS[report["benchmark"]] for bar in chart.bars)
    return any(figure == bar.figure for bar in bars)
