"""Reports of several benchmarks as one table and one picture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from pix2pix.benchmark.charts import CHARTS, TITLES, amount, rows
from pix2pix.benchmark.plot import draw_report
from pix2pix.cli.charts import picture_of, png
from pix2pix.errors import UserError
from pix2pix.system.durable import publish

PICTURE = "summary.png"


def summarize(folder: Path) -> None:
    """Print what the reports NAME.json in `folder` say, and draw them into its summary.png.

    Raises UserError where there is none, or one can't be read.
    """
    reports = [
        _read(folder / f"{name}.json") for name in TITLES if (folder / f"{name}.json").exists()
    ]
    if not reports:
        raise UserError(f"--reports {folder}: no report there; make bench writes them")
    print("\n".join(line for report in reports for line in lines(report)))
    pictures = [picture_of(draw_report(report)) for report in reports]
    whole = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    publish(folder / PICTURE, png(whole))
    print(f"drawn: {folder / PICTURE}")


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each bar of the report, at most 80 columns."""
    told = []
    for chart in CHARTS[report["benchmark"]]:
        told += ["", f"{TITLES[report['benchmark']]}: {chart.title}"]
        for row in rows(chart, report):
            value = amount(row.value, chart.unit)
            told.append(f"  {row.label:<22}{value:>20}  {row.note}".rstrip())
    return told


def _read(file: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(file.read_text())
        report["benchmark"], report["device"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no report of a benchmark; write it anew with --json") from error
    return report
