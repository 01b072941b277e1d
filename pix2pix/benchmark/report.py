"""What a benchmark found: a table for people, JSON for programs, and where it was measured."""

from collections.abc import Mapping, Sequence
from statistics import median

from pix2pix.benchmark.options import Output
from pix2pix.benchmark.plot import draw_report
from pix2pix.cli.charts import picture_of, png
from pix2pix.cli.help import table
from pix2pix.run.run_directory import versions
from pix2pix.system.durable import publish, publish_json
from pix2pix.system.machine import num_cores, processor_name

Figures = Mapping[str, float | int | str]


def report(name: str, figures: Figures, output: Output, device: str | None = None) -> None:
    """Print the figures of benchmark `name` within 80 columns; write and draw them if wanted.

    device: what was measured on; None or "cpu" is the processor. Names carry the units.
    """
    if device in (None, "cpu"):
        device = f"{processor_name()}, {num_cores()} cores"
    where = {f"{package}_version": version for package, version in versions().items()}
    whole = {"benchmark": name, **figures, "device": device, **where}
    print(table((name, written(value)) for name, value in figures.items()))
    print(table([("device", str(device))]))
    if output.json is not None:
        publish_json(output.json, whole)
        print(f"written: {output.json}")
    if output.plot is not None:
        publish(output.plot, png(picture_of(draw_report(whole))))
        print(f"drawn: {output.plot}")


def spread(values: Sequence[float]) -> float:
    """Return (largest − smallest) ÷ median of the rounds of one side."""
    return (max(values) - min(values)) / median(values)


def written(value: float | int | str) -> str:
    """Return a figure as people read it: four digits, thousands apart."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
