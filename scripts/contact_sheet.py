"""Draw photographs beside their colored versions, on one sheet: gray | colorized | truth.

python scripts/contact_sheet.py --photos photos --colorized colored --out sheet.png
"""

from dataclasses import dataclass
from pathlib import Path

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.colorizing.contact_sheet import write_contact_sheet


@dataclass(frozen=True)
class ContactSheetOptions:
    """What to show."""

    photos: Path = option(help="as given to colorize.py: a file, a folder or a glob")
    colorized: Path = option(help="the folder that colorize.py filled", metavar="DIR")
    out: Path = option(help="picture to write, such as sheet.png", metavar="FILE")
    max_rows: int = option(40, help="most photographs to show", unit="photographs")


def contact_sheet(options: ContactSheetOptions) -> int:
    """Draws photographs beside what scripts/colorize.py made of them, as one picture.

    Columns are gray, colorized and truth; a photograph captured in gray has no truth.
    """
    rows = write_contact_sheet(options.photos, options.colorized, options.out, options.max_rows)
    print(f"{rows} photographs: {options.out}")
    return 0


def command() -> None:
    """`pix2pix-contact-sheet`, and this file."""
    main(contact_sheet, ContactSheetOptions)


if __name__ == "__main__":
    command()
