"""Measure a trained run on a split of shards, on one process or, launched by accelerate, on many.

python scripts/evaluate.py --run_dir runs/first --shards shards --split val --out report.json
"""

import os

from pix2pix.cli.command_line import main
from pix2pix.data import loader_server
from pix2pix.evaluation.report import EvaluateOptions, make_report
from pix2pix.run import launcher


def evaluate(options: EvaluateOptions) -> int:
    """Measures a trained run on a split: the fidelity of its colors and how colorful it is.

    Beside it stand gray photographs, one color for all, and the most that a network could do.
    Interrupted, the same command goes on. docs/evaluation.md defines every figure.
    """
    launcher.check(os.environ)
    if options.num_workers != 0:
        loader_server.start()  # it imports torch while this process does
    from pix2pix.run.distributed import Distributed  # heavy: only when the work starts

    with Distributed() as distributed:
        make_report(options, distributed)
    return 0


def command() -> None:
    """`pix2pix-evaluate`, and this file."""
    main(evaluate, EvaluateOptions)


if __name__ == "__main__":
    command()
