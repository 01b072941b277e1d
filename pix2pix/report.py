"""The report on a trained run: what scripts/evaluate.py and slurm.submit evaluate do."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pix2pix.options import option

if TYPE_CHECKING:
    from pix2pix.distributed import Distributed


@dataclass(frozen=True)
class EvaluateOptions:
    """Which run, on which photographs."""

    run_dir: Path = option(help="run directory of a training", metavar="DIR", group="evaluation")
    shards: Path = option(help="folder of shards and their manifest", metavar="DIR")
    split: str = option("val", help="split of the shards to measure on", metavar="NAME")
    out: Path = option(help="report to write, JSON", metavar="FILE")
    batch_size: int = option(16, help="photographs at a time on each process")
    num_workers: int | None = option(
        None, help="loader processes of each process; none: by the cores"
    )


def make_report(options: EvaluateOptions, distributed: "Distributed") -> None:
    """Measure a run with all processes; one writes the report, and shows it."""
    from pix2pix.evaluation import evaluate_run, report_table, write_report  # heavy

    report = evaluate_run(
        options.run_dir,
        options.shards,
        options.split,
        distributed,
        options.batch_size,
        options.num_workers,
    )
    distributed.on_main(lambda: write_report(options.out, report))
    distributed.say(f"{report_table(report)}\nreport: {options.out}")
