"""Export a trained run as a folder that colors without the run and can go to the hub.

python scripts/export.py --run_dir runs/first --out out/model
"""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option


@dataclass(frozen=True)
class ExportOptions:
    """The run and the output folder."""

    run_dir: Path = option(help="run directory of a training", metavar="DIR")
    out: Path = option(help="folder to create", metavar="DIR")
    license: str | None = option(
        None, help="license of the model as a hub identifier: mit, …", metavar="NAME"
    )
    onnx: bool = option(
        False, help="also write model.onnx for other runtimes, checked against torch"
    )


def export(options: ExportOptions) -> int:
    """Export the generator of a run: model.safetensors, config.json and a model card.

    scripts/colorize.py takes the folder in place of the run.
    """
    from pix2pix.export.export import export  # heavy: only when the work starts

    for line in export(options.run_dir, options.out, options.license, options.onnx):
        print(line)
    return 0


def command() -> None:
    """Run as `pix2pix-export` or as this file."""
    main(export, ExportOptions)


if __name__ == "__main__":
    command()
