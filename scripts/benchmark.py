"""Measure how fast it is here: python scripts/benchmark.py {checkpoint,prep} [--json FILE].

Both sides of every ratio are measured in the same run, taking turns.
"""

from pix2pix.benchmark.options import CheckpointOptions, PrepOptions


def checkpoint(options: CheckpointOptions) -> None:
    """What saving and resuming cost: stall, bytes per process, seconds to the first step."""
    from pix2pix.benchmark.checkpoint import measure  # heavy: only when the work starts
    from pix2pix.benchmark.report import report

    figures, device = measure(options)
    report(figures, options.json, device)


def prep(options: PrepOptions) -> None:
    """Data preparation: pairs per second, beside the codecs alone and beside img2dataset."""
    from pix2pix.benchmark.prep import measure
    from pix2pix.benchmark.report import report

    report(measure(options), options.json)


def command() -> None:
    """`pix2pix-benchmark`, and this file."""
    # Not above: processes that it spawns read this file again, and stay small.
    from pix2pix.cli import main

    main({"checkpoint": (checkpoint, CheckpointOptions), "prep": (prep, PrepOptions)})


if __name__ == "__main__":
    command()
