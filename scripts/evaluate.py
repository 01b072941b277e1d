"""Evaluate a trained run on a split of shards, on one process or on many (accelerate launch).

python scripts/evaluate.py --run_dir runs/first --shards shards --split val --out report.json
"""

import os

from pix2pix.cli.command_line import main
from pix2pix.data import loader_server
from pix2pix.evaluation.report import EvaluateOptions, make_report
from pix2pix.run import launcher


def evaluate(options: EvaluateOptions) -> int:
    """Evaluate a trained run on a split: fidelity of the colors, and colorfulness.

    The report includes baselines: gray, one color for all, and the best that a network
    could do. If interrupted, the same command resumes. See docs/evaluation.md for every
    figure.
    """
    launcher.check(os.environ)
    if options.num_workers != 0:
        loader_server.start()  # it imports torch while this process does
    from pix2pix.run.distributed import Distributed  # heavy: only when the work starts

    with Distributed() as distributed:
        make_report(options, distributed)
    return 0


def command() -> None:
    """Run as `pix2pix-evaluate` or as this file."""
    main(evaluate, EvaluateOptions)


if __name__ == "__main__":
    command()
