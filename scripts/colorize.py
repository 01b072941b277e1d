"""Color photographs with a trained run: a file, a folder with its subfolders, or a glob.

python scripts/colorize.py --run_dir runs/first --photos "old photographs" --out colored
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.errors import UserError
from pix2pix.photos.files import colorize_files, plan_outputs

MAX_SATURATION = 4


@dataclass(frozen=True)
class ColorizeOptions:
    """The photographs, the model and how to color."""

    run_dir: Path = option(help="a run, an exported folder, or owner/name on the hub")
    photos: Path = option(help="a file, a folder or a glob such as 'scans/**/*.tif'")
    out: Path = option(help="folder for the colored photographs", metavar="DIR")
    compare: bool = option(False, help="also save NAME.compare.EXT: gray and colored side by side")
    saturation: float = option(
        1.0, help="factor on the chroma, 0 (gray) to 4; 1: the network's output"
    )
    restore_contrast: bool = option(
        False, help="restore black and white of faded prints, also in the result"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.saturation <= MAX_SATURATION:
            raise UserError(
                f"--saturation {self.saturation:g}: give a number from 0 (gray) to "
                f"{MAX_SATURATION}; 1 keeps the network's colors"
            )


def colorize(options: ColorizeOptions) -> int:
    """Color photographs of any size with a trained run; names and subfolders are kept.

    The exit status is 1 if some could not be colored; these are named, the others are saved.
    """
    from pix2pix.colorizing.colorizer import Colorizer  # heavy: only when the work starts

    plan = plan_outputs(options.photos, options.out, options.compare)
    colorizer = Colorizer.from_path(options.run_dir)
    colorize_one = partial(
        colorizer.colorize,
        saturation=options.saturation,
        restore_contrast=options.restore_contrast,
    )
    report = colorize_files(colorize_one, plan)
    print(report)
    return 1 if report.failures else 0


def command() -> None:
    """Run as `pix2pix-colorize` or as this file."""
    main(colorize, ColorizeOptions)


if __name__ == "__main__":
    command()
