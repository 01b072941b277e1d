"""Measure a trained run on a split of shards, on one process or, launched by accelerate, on many.

python scripts/evaluate.py --run_dir runs/first --shards shards --split val --out report.json
"""

from dataclasses import dataclass
from pathlib import Path

from pix2pix import cli


@dataclass(frozen=True)
class EvaluateOptions:
    """Which run, on which photographs."""

    run_dir: Path = cli.option(help="run directory of a training", metavar="DIR")
    shards: Path = cli.option(help="folder of shards and their manifest", metavar="DIR")
    split: str = cli.option("val", help="split of the shards to measure on", metavar="NAME")
    out: Path = cli.option(help="report to write, JSON", metavar="FILE")
    batch_size: int = cli.option(16, help="photographs at a time on each process")
    num_workers: int | None = cli.option(
        None, help="loader processes of each process; none: by the cores"
    )


def evaluate(options: EvaluateOptions) -> int:
    """Measures a trained run on a split: PSNR, SSIM, chroma error and colorfulness.

    The gray photographs stand beside it: the baseline that a colorizer must beat.
    """
    from pix2pix.distributed import Distributed  # heavy: only when the work starts
    from pix2pix.evaluation import evaluate_run, report_table, write_report

    with Distributed() as distributed:
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
    return 0


if __name__ == "__main__":
    cli.main(evaluate, EvaluateOptions)
