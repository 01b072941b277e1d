"""Measure how fast it is here: benchmark.py COMMAND [--json FILE] [--plot FILE.png].

Both sides of every ratio are measured in the same run, taking turns.
"""

from pix2pix.benchmark.options import (
    CheckpointOptions,
    EndToEndOptions,
    LoaderOptions,
    Output,
    PrepOptions,
    ScalingOptions,
    StepOptions,
    SummaryOptions,
)


def checkpoint(options: CheckpointOptions, output: Output) -> None:
    """What saving and resuming cost: stall, bytes per process, seconds to the first step."""
    from pix2pix.benchmark.checkpoint import measure  # heavy: only when the work starts
    from pix2pix.benchmark.report import report

    figures, device = measure(options)
    report("checkpoint", figures, output, device)


def end_to_end(options: EndToEndOptions, output: Output) -> None:
    """A whole training: its rate beside that of the bare step, and where its time goes."""
    import time

    started = time.perf_counter()
    from pix2pix.benchmark.end_to_end import measure
    from pix2pix.benchmark.report import report
    from pix2pix.run.distributed import Distributed

    with Distributed() as distributed:
        figures = measure(options, distributed, time.perf_counter() - started)
        report("end_to_end", figures, output, distributed.device_name)


def loader(options: LoaderOptions, output: Output) -> None:
    """Loader: samples per second beside the decoder alone and beside a folder of pictures."""
    from pix2pix.benchmark.loader import measure
    from pix2pix.benchmark.report import report

    report("loader", measure(options), output)


def prep(options: PrepOptions, output: Output) -> None:
    """Data preparation: pairs per second, beside the codecs alone."""
    from pix2pix.benchmark.prep import measure
    from pix2pix.benchmark.report import report

    report("prep", measure(options), output)


def scaling(options: ScalingOptions, output: Output) -> None:
    """Training step on 1, 2 and 4 processes: efficiency, and bytes on the wire."""
    from pix2pix.benchmark.report import report
    from pix2pix.benchmark.scaling import measure

    figures, device = measure(options)
    report("scaling", figures, output, device)


def step(options: StepOptions, output: Output) -> None:
    """Training step: beside the classic one, and the device's matrix multiplication."""
    from pix2pix.benchmark.report import report
    from pix2pix.benchmark.step import measure
    from pix2pix.run.distributed import Distributed

    with Distributed() as distributed:
        report("step", measure(options, distributed), output, distributed.device_name)


def summary(options: SummaryOptions) -> None:
    """Reports of benchmarks as one table and one picture."""
    from pix2pix.benchmark.summary import summarize

    summarize(options.reports)


def command() -> None:
    """`pix2pix-benchmark`, and this file."""
    # Not above: processes that it spawns read this file again, and stay small.
    from pix2pix.cli.command_line import main

    main(
        {
            "checkpoint": (checkpoint, (CheckpointOptions, Output)),
            "end_to_end": (end_to_end, (EndToEndOptions, Output)),
            "loader": (loader, (LoaderOptions, Output)),
            "prep": (prep, (PrepOptions, Output)),
            "scaling": (scaling, (ScalingOptions, Output)),
            "step": (step, (StepOptions, Output)),
            "summary": (summary, SummaryOptions),
        }
    )


if __name__ == "__main__":
    command()
