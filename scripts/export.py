"""Export a trained run: a folder that colours without it, and that the hub takes.

python scripts/export.py --run_dir runs/first --out out/model
"""

from dataclasses import dataclass
from pathlib import Path

from pix2pix import cli


@dataclass(frozen=True)
class ExportOptions:
    """Which run, and where it goes."""

    run_dir: Path = cli.option(help="run directory of a training", metavar="DIR")
    out: Path = cli.option(help="folder to make", metavar="DIR")
    license: str | None = cli.option(
        None, help="licence of the model, as the hub names it: mit, cc-by-4.0, …", metavar="NAME"
    )
    onnx: bool = cli.option(
        False, help="model.onnx, too, for other runtimes; checked against torch"
    )


def export(options: ExportOptions) -> int:
    """Exports the best generator of a run: model.safetensors, config.json and a model card.

    scripts/colorize.py takes the folder in place of the run.
    """
    from pix2pix.export import export  # heavy: only when the work starts

    for line in export(options.run_dir, options.out, options.license, options.onnx):
        print(line)
    return 0


def command() -> None:
    """`pix2pix-export`, and this file."""
    cli.main(export, ExportOptions)


if __name__ == "__main__":
    command()
