"""The report on a trained run: what scripts/evaluate.py and slurm.submit evaluate do."""

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pix2pix.cli.options import option
from pix2pix.errors import UserError
from pix2pix.system.durable import publish, publish_json
from pix2pix.system.urls import check_places

if TYPE_CHECKING:
    from pix2pix.evaluation.run_evaluation import Evaluated
    from pix2pix.run.distributed import Distributed

Extra = Literal["fid", "kid", "lpips", "lpips_vgg"]
SortBy = Literal["psnr", "ssim", "chroma_error", "delta_e", "delta_e_76", "histogram_distance"]

SHOWN = {  # in the table for people, with the unit; where there is one
    "psnr": "dB",
    "ssim": "",
    "chroma_error": "in ab",
    "delta_e": "CIEDE2000",
    "chroma": "in ab",
    "colorfulness": "",
    "colorfulness_abs": "",
    "delta_colorfulness": "",
    "histogram_distance": "0 to 1",
    "histogram_distance_of_set": "0 to 1",
    "lpips": "",
    "lpips_vgg": "",
    "fid": "",
    "kid": "",
    "ked_lite0": "",
}
COLUMNS = {"colorized": None, "gray": "gray", "one color": "mean_color", "ceiling": "true_chroma"}
_NAME, _FIGURE = 26, 10  # characters


@dataclass(frozen=True)
class EvaluateOptions:
    """Which run, on which photographs, and what to write."""

    run_dir: Path = option(help="run directory of a training", metavar="DIR", group="evaluation")
    shards: tuple[str, ...] = option(
        help="folders or URLs of shards", metavar="DIR|URL", many="words"
    )
    split: str = option("val", help="split of the shards to measure on", metavar="NAME")
    out: Path = option(help="report to write, JSON", metavar="FILE")
    csv: Path | None = option(
        None, help="table to write, a line for each photograph", metavar="FILE.csv"
    )
    sheet: Path | None = option(
        None,
        help="picture to write: the best, median and worst photographs, and histograms",
        metavar="FILE.png",
    )
    sheet_by: SortBy = option(
        "delta_e", help="what is best and worst on the sheet", metavar="METRIC"
    )
    metrics: tuple[Extra, ...] | None = option(
        None,
        help="more metrics, of fid, kid, lpips and lpips_vgg: they need weights",
        metavar="NAME,…",
    )
    weights: Path | None = option(
        None, help="folder of their weights; none: torch's own", metavar="DIR"
    )
    shards_cache: str | None = option(
        None, help="folder of each node that shards are copied to; none: URLs only", metavar="DIR"
    )
    shards_cache_gib: float | None = option(
        None, help="largest size of that folder; none: 80 % of what is free", unit="GiB"
    )
    batch_size: int = option(16, help="photographs at a time on each process")
    num_workers: int | None = option(
        None, help="loader processes of each process; none: by the cores"
    )

    def __post_init__(self) -> None:
        check_places(self.shards)
        if self.shards_cache_gib is not None and self.shards_cache_gib <= 0:
            raise UserError(f"--shards_cache_gib {self.shards_cache_gib}: give more than 0")
        if self.batch_size < 1:
            raise UserError(f"--batch_size {self.batch_size}: give 1 or more")
        if self.sheet is not None and self.sheet.suffix.lower() != ".png":
            raise UserError(f"--sheet {self.sheet}: give a name that ends in .png")
        if self.csv is not None and self.csv.suffix.lower() != ".csv":
            raise UserError(f"--csv {self.csv}: give a name that ends in .csv")


def make_report(options: EvaluateOptions, distributed: "Distributed") -> None:
    """Measure a run with all processes; one writes the report, and shows it."""
    from pix2pix.evaluation.run_evaluation import measure_run  # heavy

    distributed.run_on_main(lambda: _check_folders(options))
    evaluated = measure_run(
        options.run_dir,
        options.shards,
        options.split,
        distributed,
        options.batch_size,
        options.num_workers,
        options.metrics or (),
        options.weights,
        (options.shards_cache, options.shards_cache_gib),
    )
    written = distributed.run_on_main(lambda: _write_all(options, evaluated))
    distributed.say("\n".join([report_table(evaluated.report), *written]))


def report_table(report: Mapping[str, Any]) -> str:
    """Return the report for people: a line for each metric, the run beside the baselines."""
    rows = ["".join([" " * _NAME, *(f"{title:>{_FIGURE}}" for title in COLUMNS)])]
    for metric, unit in SHOWN.items():
        if metric in report:
            sources = [report if name is None else report[name] for name in COLUMNS.values()]
            digits = 5 if metric in ("kid", "ked_lite0") else 3
            figures = "".join(f"{source[metric]:{_FIGURE}.{digits}f}" for source in sources)
            rows.append(f"{metric:{_NAME}}{figures}  {unit}".rstrip())
    count = f"{report['num_samples']} photographs of {report['split']}, step {report['step']}"
    truth = f"true photographs: colorfulness {report['colorfulness_truth']:.3f}"
    rows.append(f"{truth}, chroma {report['chroma_truth']:.3f}")
    return "\n".join([count, *rows, _ked_line(report), *_target_lines(report)])


def _ked_line(report: Mapping[str, Any]) -> str:
    """Return what two halves of the true photographs have, or why it was not measured."""
    floor = report.get("ked_lite0_floor")
    if floor is not None:
        deviation = report["ked_lite0_floor_deviation"]
        return f"ked_lite0 of two halves of the truth: {floor:.5f} ± {deviation:.5f}"
    if "ked_lite0" in report:
        return "ked_lite0: too few photographs for two halves of the truth"
    return f"ked_lite0: {report['conventions']['ked_lite0']}"


def _target_lines(report: Mapping[str, Any]) -> list[str]:
    """Return lines that say at which points of its curve to compare the run."""
    lines = []
    for goal, point in report["curve_targets"].items():
        figures = "not reached at any saturation"
        if point is not None:
            figures = (
                f"PSNR {point['psnr']:.2f} dB, colorfulness {point['colorfulness']:.1f} "
                f"(saturation {point['saturation']:.2f})"
            )
        lines.append(f"{goal.replace('_', ' ')}: {figures}")
    return lines


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report as JSON. Raises UserError where it can't."""
    _write("report", path, lambda: publish_json(path, report))


def photo_table(evaluated: "Evaluated") -> str:
    """Return a CSV of one line per photograph, in manifest order: key, source and metrics."""
    from pix2pix.evaluation.run_evaluation import RUN, photo_columns

    columns = photo_columns(evaluated.scores, RUN)
    sources = evaluated.sources(evaluated.scores.positions)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "source", *columns])
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    for (key, source), values in zip(sources, rows, strict=True):
        writer.writerow([key, source, *(f"{value:.6g}" for value in values)])
    return text.getvalue()


def _check_folders(options: EvaluateOptions) -> None:
    """Raise UserError where a file can't be written: before the work, not after it."""
    for path in filter(None, (options.out, options.csv, options.sheet)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"can't make the folder {path.parent}: {error.strerror}") from error
        if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise UserError(f"can't write {path}; choose another name or folder")


def _write_all(options: EvaluateOptions, evaluated: "Evaluated") -> list[str]:
    """Write what was asked for, the report last; a line about each file."""
    lines = []
    if options.csv is not None:
        table, path = photo_table(evaluated).encode(), options.csv
        _write("table", path, lambda: publish(path, table))
        lines.append(f"table: {path}")
    if options.sheet is not None:
        from pix2pix.evaluation.sheet import draw_report_sheet  # only now: Pillow

        picture, place = draw_report_sheet(evaluated, options.sheet_by), options.sheet
        _write("sheet", place, lambda: publish(place, picture))
        lines.append(f"sheet: {place}")
    write_report(options.out, evaluated.report)
    return [*lines, f"report: {options.out}"]


def _write(what: str, path: Path, write: Callable[[], None]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise UserError(f"can't write the {what} {path}: {error.strerror}") from error
