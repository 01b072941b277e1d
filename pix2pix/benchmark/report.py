"""What a benchmark found: a table for people, JSON for programs, and where it was measured."""

from collections.abc import Mapping
from pathlib import Path

from pix2pix.cli_help import table
from pix2pix.durable import publish_json
from pix2pix.machine import num_cores, processor_name
from pix2pix.run_directory import versions

Figures = Mapping[str, float | int | str]


def report(figures: Figures, json_file: Path | None, device: str | None = None) -> None:
    """Print `figures` within 80 columns and, if wanted, write them as JSON.

    device: what was measured on; None is the processor. Names carry the units.
    """
    where: Figures = {
        "device": device or f"{processor_name()}, {num_cores()} cores",
        **{f"{package}_version": version for package, version in versions().items()},
    }
    print(table((name, _written(value)) for name, value in figures.items()))
    print(table([("device", str(where["device"]))]))
    if json_file is not None:
        publish_json(json_file, {**figures, **where})
        print(f"written: {json_file}")


def _written(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
