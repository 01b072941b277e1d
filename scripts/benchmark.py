"""Measure how fast it is here: python scripts/benchmark.py prep [--json FILE].

Both sides of every ratio are measured in the same run, taking turns.
"""

from pix2pix.benchmark.options import PrepOptions


def prep(options: PrepOptions) -> None:
    """Data preparation: pairs per second, beside the codecs alone and beside img2dataset."""
    from pix2pix.benchmark.prep import measure  # heavy: only when the work starts
    from pix2pix.benchmark.report import report

    report(measure(options), options.json)


if __name__ == "__main__":
    from pix2pix.cli import main

    main({"prep": (prep, PrepOptions)})
