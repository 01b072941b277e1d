"""The points of a sweep side by side: how far each is, and its figures so far."""

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pix2pix.cli.options import enumerate_words
from pix2pix.errors import UserError
from pix2pix.run.run_directory import RunDirectory
from pix2pix.system.durable import publish
from slurm.sweep import read_sweep

FIGURES = {  # column: tag in metrics.jsonl
    "psnr": "evaluation/psnr",
    "ssim": "evaluation/ssim",
    "color": "evaluation/colorfulness",
    "chroma": "evaluation/chroma_error",
    "l1": "loss/generator_l1",
}
_NAME_COLUMNS = 27
_BASELINE = "baseline_gray/"  # of the same metrics; each point's first evaluation measures it
_TRUTH = "evaluation/colorfulness_truth"


class PointStatus(NamedTuple):
    """A point: its step of how many, and the newest value of each tag that it has logged.

    Of a baseline total_steps is None: it is not trained.
    """

    name: str
    step: int
    total_steps: int | None
    values: Mapping[str, float]


def sweep_table(folder: Path, sort: str) -> str:
    """Return a line for each point of the sweep in `folder` and the baseline, the best first.

    sort: a column. Points that have no such figure yet come last. Raises UserError for a column
    that there is none of.
    """
    if sort not in FIGURES:
        raise UserError(f"--sort {sort}: give {enumerate_words(FIGURES, 'or')}")
    points = [point_status(folder, name) for name in read_sweep(folder)]
    points += baselines(points)
    points.sort(key=lambda point: -point.values.get(FIGURES[sort], float("-inf")))
    width = min(_NAME_COLUMNS, max(5, *(len(point.name) for point in points)))
    lines = [f"{'point':{width}} {'step':>11} " + " ".join(f"{name:>7}" for name in FIGURES)]
    for point in points:
        cells = (_cell(point.values.get(tag)) for tag in FIGURES.values())
        trained = point.total_steps is not None
        step = f"{point.step}/{point.total_steps or '?'}" if trained else "-"
        name = point.name if len(point.name) <= width else f"{point.name[: width - 1]}…"
        lines.append(f"{name:{width}} {step:>11} " + " ".join(f"{c:>7}" for c in cells))
    truths = [point.values[_TRUTH] for point in points if _TRUTH in point.values]
    if truths:
        lines.append(f"the true photographs have a colorfulness of {truths[0]:.1f}")
    return "\n".join(lines)


def point_status(folder: Path, name: str) -> PointStatus:
    """Return how far the point `name` is, as its run directory tells."""
    run = RunDirectory(folder / name)
    total = 0
    if run.config_file.exists():
        total = run.read_config().total_steps or 0
    values: dict[str, float] = {}
    step = run.newest_step()
    if run.metrics_file.exists():
        for line in run.metrics_file.read_text().splitlines():
            with suppress(ValueError):  # a killed writer may leave half a line
                record = json.loads(line)
                step = max(step, int(record.get("step", 0)))
                numbers = (float, int)
                values |= {tag: v for tag, v in record.items() if isinstance(v, numbers)}
    return PointStatus(name, step, total, values)


def baselines(points: Sequence[PointStatus]) -> list[PointStatus]:
    """Return what the gray photographs score: a row, or several where points differ in them.

    They do where points have other photographs or another size of them.
    """
    measured: dict[tuple[str, ...], dict[str, float]] = {}
    for point in points:
        tags = {tag: tag.replace("evaluation/", _BASELINE) for tag in FIGURES.values()}
        values = {
            tag: point.values[mine]
            for tag, mine in tags.items()
            if mine.startswith(_BASELINE) and mine in point.values
        }
        if values:  # rounded: devices differ in the last digits
            measured.setdefault(tuple(map(_cell, values.values())), values)
    return [PointStatus("gray", 0, None, values) for values in measured.values()]


def plot_sweep(folder: Path, file: Path) -> None:
    """Draw PSNR against colorfulness, a dot for each point that has both, and the baseline."""
    from matplotlib.figure import Figure  # takes a second: only where it draws

    points = [point_status(folder, name) for name in read_sweep(folder)]
    points += baselines(points)
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    for point in points:
        color, psnr = (point.values.get(FIGURES[name]) for name in ("color", "psnr"))
        if color is None or psnr is None:
            continue
        axes.plot(color, psnr, "o" if point.total_steps is not None else "ks")
        axes.annotate(
            point.name, (color, psnr), xytext=(4, 4), textcoords="offset points", fontsize=8
        )
    truths = [point.values[_TRUTH] for point in points if _TRUTH in point.values]
    if truths:
        axes.axvline(truths[0], linestyle=":", color="gray")
        axes.text(truths[0], axes.get_ylim()[0], "truth ", color="gray", ha="right", va="bottom")
    axes.ticklabel_format(useOffset=False)
    axes.margins(0.15)
    axes.set_xlabel("colorfulness (Hasler and Süsstrunk)")
    axes.set_ylabel("PSNR, dB")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    publish(file, picture.getvalue())


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
