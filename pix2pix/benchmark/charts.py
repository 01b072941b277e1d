"""Which figures of each benchmark stand side by side, for its picture and for the summary."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Bar:
    """A figure by its name in the report; spread: the name of its (max − min) ÷ median.

    share: the name of a figure that says how good it is, such as an efficiency.
    """

    label: str
    figure: str
    spread: str = ""
    share: str = ""


@dataclass(frozen=True)
class Chart:
    """Figures of one unit; scale: what they are multiplied by for it.

    compared: the first is ours, and how many times each other it is stands beside that.
    """

    title: str
    unit: str
    bars: tuple[Bar, ...]
    scale: float = 1.0
    compared: bool = True


class Row(NamedTuple):
    """A bar with its values: spread 0 where the report has none, note what is said beside it."""

    label: str
    value: float
    spread: float
    note: str


PHOTOS = "photographs/s"
_COUNTS = (1, 2, 4, 8, 16)

TITLES = {
    "prep": "Data preparation",
    "loader": "Loader",
    "step": "Training step",
    "end_to_end": "Whole training",
    "scaling": "Processes",
    "checkpoint": "Checkpoints",
}

CHARTS = {
    "prep": tuple(
        Chart(
            f"pairs per second, {processes}",
            "pairs/s",
            (
                Bar("ours", f"{prefix}pairs_per_second", f"{prefix}spread"),
                Bar(
                    "codecs alone",
                    f"{prefix}codec_bound_pairs_per_second",
                    f"{prefix}codec_bound_spread",
                ),
            ),
        )
        for prefix, processes in (("", "all processes"), ("one_process_", "one process"))
    ),
    "loader": (
        Chart(
            "photographs per second",
            PHOTOS,
            (
                Bar("ours", "samples_per_second", "spread"),
                Bar("decoder alone", "decode_bound_samples_per_second", "decode_bound_spread"),
                Bar("folder of pictures", "classic_samples_per_second", "classic_spread"),
                Bar("from a warm cache", "cached_samples_per_second", "cached_spread"),
            ),
        ),
        Chart(
            "photographs per second of tars that others made",
            PHOTOS,
            (
                Bar("ours", "indexed_samples_per_second", "indexed_spread"),
                Bar(
                    "decode and resize alone",
                    "indexed_bound_samples_per_second",
                    "indexed_bound_spread",
                ),
            ),
        ),
    ),
    "step": (
        Chart(
            "photographs per second",
            PHOTOS,
            (
                Bar("ours", "samples_per_second", "spread"),
                Bar("classic step", "classic_samples_per_second", "classic_spread"),
            ),
        ),
        Chart(
            "arithmetic",
            "TFLOP/s",
            (
                Bar("our step", "flops_per_second", "spread"),
                Bar("matrix multiplication", "matmul_flops_per_second"),
            ),
            1e-12,
        ),
    ),
    "end_to_end": (
        Chart(
            "photographs per second",
            PHOTOS,
            (
                Bar("Trainer.fit()", "fit_samples_per_second", "fit_spread", "efficiency"),
                Bar("bare step", "step_samples_per_second", "step_spread"),
            ),
            compared=False,
        ),
        Chart(
            "seconds of this training",
            "s",
            tuple(
                Bar(part.replace("_", " "), f"{part}_seconds")
                for part in ("start", "loop", "pictures", "evaluation", "checkpoints")
            ),
            compared=False,
        ),
    ),
    "scaling": (
        Chart(
            "photographs per second",
            PHOTOS,
            tuple(
                bar
                for n in _COUNTS
                for bar in (
                    Bar(
                        f"processes: {n}",
                        f"samples_per_second_{n}",
                        f"spread_{n}",
                        f"efficiency_{n}",
                    ),
                    Bar("    no exchange", f"apart_samples_per_second_{n}", f"apart_spread_{n}"),
                )
            ),
            compared=False,
        ),
        Chart(
            "sent by a process in a step",
            "MB",
            tuple(
                bar
                for n in _COUNTS
                for bar in (
                    Bar(f"processes: {n}", f"sent_bytes_{n}"),
                    Bar("    ring, predicted", f"ring_bytes_{n}"),
                )
            ),
            1e-6,
            compared=False,
        ),
    ),
    "checkpoint": (
        Chart(
            "how long a save stalls the training",
            "s",
            (
                Bar("ours", "async_stall_seconds", "async_stall_spread"),
                Bar("a plain copy", "copy_seconds", "copy_spread"),
                Bar("a save waited for", "sync_seconds", "sync_spread"),
            ),
        ),
        Chart(
            "from process start to the first step",
            "s",
            (
                Bar("resumed", "resume_seconds", "resume_spread"),
                Bar("fresh", "fresh_start_seconds", "fresh_start_spread"),
            ),
        ),
    ),
}


def rows(chart: Chart, report: Mapping[str, Any]) -> Iterator[Row]:
    """Return the bars of `chart` that `report` has figures for."""
    first: float | None = None
    for bar in chart.bars:
        if bar.figure not in report:
            continue
        value = report[bar.figure] * chart.scale
        note = ""
        if bar.share in report:
            note = f"efficiency {report[bar.share]:.0%}"
        elif chart.compared and first is not None:
            note = f"{chart.bars[0].label}: {first / value:.2f} times"
        first = value if first is None else first
        yield Row(bar.label, value, report.get(bar.spread, 0.0), note)


def amount(value: float, unit: str) -> str:
    """Return three digits and the unit: `2,151 photographs/s`."""
    digits = max(0, 3 - len(f"{value:.0f}")) if value >= 1 else 3
    return f"{value:,.{digits}f} {unit}"
