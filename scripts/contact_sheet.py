"""Draw a contact sheet of photographs: gray | colorized | truth.

python scripts/contact_sheet.py --photos photos --colorized colored --out sheet.png
"""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.colorizing.contact_sheet import write_contact_sheet


@dataclass(frozen=True)
class ContactSheetOptions:
    """What the sheet shows."""

    photos: Path = option(help="as given to colorize.py: a file, a folder or a glob")
    colorized: Path = option(help="output folder of colorize.py", metavar="DIR")
    out: Path = option(help="picture to write, such as sheet.png", metavar="FILE")
    max_rows: int = option(40, help="maximum number of photographs", unit="photographs")


def contact_sheet(options: ContactSheetOptions) -> int:
    """Draw photographs beside the results of scripts/colorize.py, as one picture.

    Columns are gray, colorized and truth; a photograph captured in gray has no truth.
    """
    rows = write_contact_sheet(options.photos, options.colorized, options.out, options.max_rows)
    print(f"{rows} photographs: {options.out}")
    return 0


def command() -> None:
    """Run as `pix2pix-contact-sheet` or as this file."""
    main(contact_sheet, ContactSheetOptions)


if __name__ == "__main__":
    command()
