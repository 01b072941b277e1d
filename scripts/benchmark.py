"""Measure on this machine: python scripts/benchmark.py checkpoint [flags]; --help lists them."""

from pix2pix.benchmark.options import CheckpointOptions
from pix2pix.cli import main


def checkpoint(options: CheckpointOptions) -> None:
    """What saving and resuming cost: stall, bytes per process, seconds to the first step."""
    from pix2pix.benchmark.checkpoint import measure  # heavy: only when the work starts
    from pix2pix.benchmark.report import report

    figures, device = measure(options)
    report(figures, options.json, device)


if __name__ == "__main__":
    main({"checkpoint": (checkpoint, CheckpointOptions)})
