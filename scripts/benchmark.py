"""Measure speed on this machine: benchmark.py COMMAND [--json FILE] [--plot FILE.png].

Both sides of every ratio are measured in the same run, by turns.
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
    """Measure saving and resuming: stall, bytes per process, seconds to the first step."""
    from pix2pix.benchmark.checkpoint import measure  # heavy: only when the work starts
    from pix2pix.benchmark.report import report

    figures, device = measure(options)
    report("checkpoint", figures, output, device)


def end_to_end(options: EndToEndOptions, output: Output) -> None:
    """Measure a whole training: its rate beside the bare step, and where its time goes."""
    import time

    started = time.perf_counter()
    from pix2pix.benchmark.end_to_end import measure
    from pix2pix.benchmark.report import report
    from pix2pix.run.distributed import Distributed

    with Distributed() as distributed:
        figures = measure(options, distributed, time.perf_counter() - started)
        report("end_to_end", figures, output, distributed.device_name)


def loader(options: LoaderOptions, output: Output) -> None:
    """Measure the loader beside its decoders alone, from a folder, a cache, over HTTP."""
    from pix2pix.benchmark.report import report

    if options.simulate_ranks is not None:
        from pix2pix.benchmark.loader_ranks import simulate
        from pix2pix.errors import UserError

        if output.plot is not None:
            raise UserError("--plot draws no simulation; leave out --plot or --simulate_ranks")
        report("loader", simulate(options), output)
        return
    from pix2pix.benchmark.loader import measure
    from pix2pix.benchmark.loader_remote import remote_figures

    report("loader", {**measure(options), **remote_figures(options)}, output)


def prep(options: PrepOptions, output: Output) -> None:
    """Measure data preparation beside its codecs alone."""
    from pix2pix.benchmark.prep import measure
    from pix2pix.benchmark.report import report

    report("prep", measure(options), output)


def scaling(options: ScalingOptions, output: Output) -> None:
    """Measure the step on 1, 2 and 4 processes: efficiency, and bytes sent."""
    from pix2pix.benchmark.report import report
    from pix2pix.benchmark.scaling import measure

    figures, device = measure(options)
    report("scaling", figures, output, device)


def step(options: StepOptions, output: Output) -> None:
    """Measure the step beside the classic one and beside matrix multiplication."""
    from pix2pix.benchmark.report import report
    from pix2pix.benchmark.step import measure
    from pix2pix.run.distributed import Distributed

    with Distributed() as distributed:
        report("step", measure(options, distributed), output, distributed.device_name)


def summary(options: SummaryOptions) -> None:
    """Draw the reports of benchmarks as one table and one picture."""
    from pix2pix.benchmark.summary import summarize

    summarize(options.reports)


def command() -> None:
    """Run as `pix2pix-benchmark` or as this file."""
    # Imported here: spawned processes import this file again, and stay small.
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
