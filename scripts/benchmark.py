"""Measure how fast it is here: benchmark.py {checkpoint,loader,prep,step} [--json FILE].

Both sides of every ratio are measured in the same run, taking turns.
"""

from pix2pix.benchmark.options import (
    CheckpointOptions,
    LoaderOptions,
    PrepOptions,
    StepOptions,
)


def checkpoint(options: CheckpointOptions) -> None:
    """What saving and resuming cost: stall, bytes per process, seconds to the first step."""
    from pix2pix.benchmark.checkpoint import measure  # heavy: only when the work starts
    from pix2pix.benchmark.report import report

    figures, device = measure(options)
    report(figures, options.json, device)


def loader(options: LoaderOptions) -> None:
    """Loader: samples per second beside the decoder alone and beside a folder of pictures."""
    from pix2pix.benchmark.loader import measure
    from pix2pix.benchmark.report import report

    report(measure(options), options.json)


def prep(options: PrepOptions) -> None:
    """Data preparation: pairs per second, beside the codecs alone and beside img2dataset."""
    from pix2pix.benchmark.prep import measure
    from pix2pix.benchmark.report import report

    report(measure(options), options.json)


def step(options: StepOptions) -> None:
    """Training step: beside the classic one, and the device's matrix multiplication."""
    from pix2pix.benchmark.report import report
    from pix2pix.benchmark.step import measure
    from pix2pix.distributed import Distributed

    with Distributed() as distributed:
        figures = measure(options, distributed)
        on_gpu = distributed.device.type == "cuda"
        report(figures, options.json, distributed.device_name if on_gpu else None)


def command() -> None:
    """`pix2pix-benchmark`, and this file."""
    # Not above: processes that it spawns read this file again, and stay small.
    from pix2pix.cli import main

    main(
        {
            "checkpoint": (checkpoint, CheckpointOptions),
            "loader": (loader, LoaderOptions),
            "prep": (prep, PrepOptions),
            "step": (step, StepOptions),
        }
    )


if __name__ == "__main__":
    command()
