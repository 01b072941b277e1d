"""A report as one picture: the best, median and worst photographs, the spread of each metric."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pix2pix.cli.charts import (
    INK,
    SOFT,
    Mark,
    chart,
    draw_curve,
    draw_histogram,
    font,
    png,
    shorten,
)
from pix2pix.evaluation.run_evaluation import CURVE, RUN, Evaluated, photo_columns
from pix2pix.evaluation.saturation_curve import COLORFUL_SHARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIGHER_IS_BETTER = {"psnr", "ssim"}
CHARTS = {  # metric → axis
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "chroma_error": "chroma error, in ab",
    "delta_e": "CIEDE2000",
    "chroma": "chroma, in ab",
    "colorfulness": "colorfulness",
    "delta_colorfulness": "from the truth's",
    "histogram_distance": "Hellinger, 0 to 1",
    "lpips": "LPIPS, AlexNet",
    "lpips_vgg": "LPIPS, VGG",
}
GROUPS = ("best", "median", "worst")

WIDTH, MARGIN = 1720, 36  # of the sheet, pixels
GAP, GUTTER = 4, 32  # between the pictures of a photograph, and between groups
GROUP_WIDTH = (WIDTH - 2 * MARGIN - 2 * GUTTER) // 3
PICTURE = (GROUP_WIDTH - 2 * GAP) // 3  # side
CAPTION = 14  # height of letters
PITCH = PICTURE + CAPTION + 18  # from row to row
PHOTOS_TOP = 164
NUM_ROWS = 4
CHARTS_IN_ROW, CHART_PITCH = 4, 268
CHART = (WIDTH - 2 * MARGIN - (CHARTS_IN_ROW - 1) * GUTTER) // CHARTS_IN_ROW, 244  # pixels


def draw_report_sheet(evaluated: Evaluated, sort_by: str) -> bytes:
    """Return the sheet as PNG; sort_by: the metric that says what is best. For rank 0 alone."""
    columns = photo_columns(evaluated.scores, RUN)
    chosen = choose(columns[sort_by], sort_by in HIGHER_IS_BETTER)
    charts = [metric for metric in CHARTS if metric in columns]
    num_rows = len(chosen[0])
    charts_top = PHOTOS_TOP + num_rows * PITCH + 24
    height = charts_top + -(-(len(charts) + 1) // CHARTS_IN_ROW) * CHART_PITCH
    sheet = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(sheet)
    _draw_heading(draw, evaluated.report, sort_by)
    for number, rows in enumerate(chosen):
        left = MARGIN + number * (GROUP_WIDTH + GUTTER)
        title = f"{GROUPS[number]} by {sort_by}"
        draw.text((left, PHOTOS_TOP - 50), title, INK, font(22))
        draw.text((left, PHOTOS_TOP - 22), "gray | colorized | truth", SOFT, font(CAPTION))
        _paste_photographs(sheet, draw, left, evaluated, rows, columns[sort_by])
    for number, metric in enumerate(charts):
        draw_one = partial(_draw_chart, metric, columns[metric], evaluated.report)
        sheet.paste(chart(CHART, draw_one), _chart_place(number, charts_top))
    curve = chart(CHART, partial(_draw_curve, evaluated.report))
    sheet.paste(curve, _chart_place(len(charts), charts_top))
    return png(sheet)


def choose(values: NDArray[np.float64], higher_is_better: bool) -> list[NDArray[np.int64]]:
    """Return the rows of the best, the median and the worst photographs; each group best first.

    values: [N], of one metric. No photograph is shown twice, unless there are fewer than three.
    """
    order = np.argsort(-values if higher_is_better else values, kind="stable")
    count = min(NUM_ROWS, max(1, len(order) // 3))
    middle = (len(order) - count) // 2
    return [order[:count], order[middle : middle + count], order[-count:]]


def _draw_heading(draw: ImageDraw.ImageDraw, report: dict[str, Any], sort_by: str) -> None:
    title = f"{shorten(report['run_dir'], 34, WIDTH // 2)}, step {report['step']:,}"
    draw.text((MARGIN, MARGIN - 12), title, INK, font(34))
    line = (
        f"{report['num_samples']:,} photographs of {report['split']}: PSNR {report['psnr']:.2f} dB "
        f"(gray {report['gray']['psnr']:.2f}), colorfulness {report['colorfulness']:.1f} "
        f"(truth {report['colorfulness_truth']:.1f}), CIEDE2000 {report['delta_e']:.2f}"
    )
    draw.text((MARGIN, MARGIN + 34), line, SOFT, font(18))


def _paste_photographs(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    left: int,
    evaluated: Evaluated,
    rows: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    positions = evaluated.scores.positions[rows]
    gray, colorized, truth = evaluated.pictures(positions)
    sources = evaluated.sources(positions)
    for number, row in enumerate(rows.tolist()):
        top = PHOTOS_TOP + number * PITCH
        for column, pixels in enumerate((gray.expand(-1, 3, -1, -1), colorized, truth)):
            picture = Image.fromarray(pixels[number].permute(1, 2, 0).contiguous().numpy())
            picture = picture.resize((PICTURE, PICTURE), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left + column * (PICTURE + GAP), top))
        value = f"{values[row]:.3g}  "
        key, source = sources[number]
        room = GROUP_WIDTH - round(font(CAPTION).getlength(value))
        text = value + shorten(source or key, CAPTION, room)
        draw.text((left, top + PICTURE + 4), text, SOFT, font(CAPTION))


def _chart_place(number: int, top: int) -> tuple[int, int]:
    row, column = divmod(number, CHARTS_IN_ROW)
    return MARGIN + column * (CHART[0] + GUTTER), top + row * CHART_PITCH


def _draw_chart(
    metric: str, values: NDArray[np.float64], report: dict[str, Any], axes: "Axes"
) -> None:
    marks = [Mark(report[metric], f"mean {report[metric]:.3g}")]
    if f"{metric}_truth" in report:
        marks.append(Mark(report[f"{metric}_truth"], f"truth {report[f'{metric}_truth']:.3g}"))
    elif metric in report["gray"]:
        marks.append(Mark(report["gray"][metric], f"gray {report['gray'][metric]:.3g}"))
    least_span = max(float(np.ptp(values)), 1e-3)
    draw_histogram(axes, metric, CHARTS[metric], values.tolist(), marks, least_span=least_span)


def _draw_curve(report: dict[str, Any], axes: "Axes") -> None:
    points = report[CURVE]
    truth = report["colorfulness_truth"]
    draw_curve(
        axes,
        "by saturation: PSNR, dB",
        "colorfulness",
        [(point["colorfulness"], point["psnr"]) for point in points],
        [f"{p['saturation']:g}" if p["saturation"] in (0, 1, 2, 3) else "" for p in points],
        [Mark(COLORFUL_SHARE * truth, f"{COLORFUL_SHARE:.0%} of the truth's")],
    )
