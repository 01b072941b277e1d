"""Color photographs with a trained run: files, folders with their subfolders, globs.

python scripts/colorize.py --run_dir runs/first --photos "old photographs" --out colored
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.errors import UserError
from pix2pix.photos.coloring import colorize_files
from pix2pix.photos.files import Format, plan_outputs
from pix2pix.photos.kinds import has_deep_formats
from pix2pix.photos.ledger import Ledger
from pix2pix.photos.picture import MAX_PIXELS
from pix2pix.version import __version__

MAX_SATURATION = 4


@dataclass(frozen=True)
class ColorizeOptions:
    """The photographs, the model and how to color."""

    run_dir: Path = option(help="a run, an exported folder, or owner/name on the hub")
    photos: tuple[Path, ...] = option(
        help="files, folders or globs such as 'scans/**/*.tif'", metavar="PATH", many="words"
    )
    out: Path = option(help="folder for the colored photographs", metavar="DIR")
    format: Format = option(
        "keep", help="format of the results; keep: that of the photograph where it is written"
    )
    compare: bool = option(False, help="also save NAME.compare.EXT: gray and colored side by side")
    saturation: float = option(
        1.0, help="factor on the chroma, 0 (gray) to 4; 1: the network's output"
    )
    restore_contrast: bool = option(
        False, help="restore black and white of faded prints, also in the result"
    )
    overwrite: bool = option(
        False, help="also color what is there already, of the same file, model and options"
    )
    max_megapixels: float | None = option(
        None, help=f"refuse larger photographs; none is {MAX_PIXELS / 1e6:.0f}", unit="megapixels"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.saturation <= MAX_SATURATION:
            raise UserError(
                f"--saturation {self.saturation:g}: give a number from 0 (gray) to "
                f"{MAX_SATURATION}; 1 keeps the network's colors"
            )
        if self.max_megapixels is not None and not 0 < self.max_megapixels < 1e5:
            raise UserError(f"--max_megapixels {self.max_megapixels:g}: give a number above 0")

    @property
    def max_pixels(self) -> int:
        """The largest photograph that is opened."""
        return MAX_PIXELS if self.max_megapixels is None else round(self.max_megapixels * 1e6)


def colorize(options: ColorizeOptions) -> int:
    """Color photographs of any size with a trained run; names and subfolders are kept.

    After an interruption the same command resumes. The exit status is 1 if some photographs could
    not be colored or a folder could not be listed; these are named, the others are saved.
    """
    from pix2pix.colorizing.colorizer import Colorizer  # heavy: only when the work starts

    plan = plan_outputs(options.photos, options.out, options.compare, options.format)
    colorizer = Colorizer.from_path(options.run_dir)
    colorize_one = partial(
        colorizer.colorize_array,
        saturation=options.saturation,
        restore_contrast=options.restore_contrast,
    )
    made_by = (
        f"{__version__} {colorizer.fingerprint()} {options.saturation:g} "
        f"{options.restore_contrast} {options.compare} {has_deep_formats()}"
    )
    ledger = Ledger(options.out, made_by, start_over=options.overwrite)
    report = colorize_files(colorize_one, plan, ledger, options.max_pixels)
    print(report)
    return 0 if report.is_complete else 1


def command() -> None:
    """Run as `pix2pix-colorize` or as this file."""
    main(colorize, ColorizeOptions)


if __name__ == "__main__":
    command()
