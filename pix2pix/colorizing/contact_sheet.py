"""A contact sheet: gray | colorized | truth, a row for each photograph (no torch)."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pix2pix.errors import UserError
from pix2pix.photos.files import Task, find_colorized
from pix2pix.photos.photo import PhotoError, chroma_spread, luma, open_photo
from pix2pix.photos.saving import FORMATS, save_photo

COLUMNS = ("gray", "colorized", "truth")
WIDTH, HEIGHT = 256, 192  # pixels, into which a picture fits
GAP = 10
HEADING, LABEL = 20, 15  # height of letters, pixels

# Taken as captured in gray: there is no truth to compare with. As make_shards decides it.
_GRAY_BELOW = 4.0


@dataclass(frozen=True)
class Row:
    """A photograph's name and its pictures, within WIDTH x HEIGHT; truth: None if it was gray."""

    label: str
    gray: Image.Image
    colorized: Image.Image
    truth: Image.Image | None

    @property
    def height(self) -> int:
        """Pixels, with the label above the pictures."""
        return LABEL + GAP // 2 + self.gray.height + 2 * GAP


def draw_sheet(rows: Iterable[Row]) -> Image.Image:
    """Return the sheet: mode "RGB", on white, as wide as three pictures, as high as needed."""
    rows = list(rows)
    heading = HEADING + 2 * GAP
    width = len(COLUMNS) * (WIDTH + GAP) + GAP
    sheet = Image.new("RGB", (width, heading + sum(row.height for row in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    lefts = [GAP + column * (WIDTH + GAP) for column in range(len(COLUMNS))]
    for left, name in zip(lefts, COLUMNS, strict=True):
        draw.text((left, GAP), name, fill="black", font=ImageFont.load_default(HEADING))
    top = heading
    for row in rows:
        draw.text((GAP, top), row.label, fill="dimgray", font=ImageFont.load_default(LABEL))
        for left, picture in zip(lefts, (row.gray, row.colorized, row.truth), strict=True):
            if picture is not None:
                sheet.paste(picture, (left, top + LABEL + GAP // 2))
        top += row.height
    return sheet


def write_contact_sheet(photos: Path, colorized: Path, out: Path, max_rows: int) -> int:
    """Draw photographs beside what `scripts/colorize.py` made of them; returns how many rows.

    photos, colorized: its --photos and its --out. Photographs that were not colored are left out,
    those captured in gray come last. Raises UserError where there is nothing to show, where a
    picture cannot be read, and where the sheet cannot be written or would overwrite one.
    """
    if max_rows < 1:
        raise UserError(f"--max_rows {max_rows}: give 1 or more")
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: give a name that ends in {', '.join(FORMATS)}")
    tasks = find_colorized(photos, colorized)
    if not tasks:
        raise UserError(
            f"{colorized} holds no colored version of the photographs {photos}; make them first: "
            f"python scripts/colorize.py --run_dir RUN --photos {photos} --out {colorized}"
        )
    shown = {path.resolve() for task in tasks for path in (task.source, task.target)}
    if out.resolve() in shown:
        raise UserError(f"--out {out} is one of the photographs; choose another name")
    try:
        rows = [_read_row(task, colorized) for task in tasks[:max_rows]]
        save_photo(draw_sheet(sorted(rows, key=lambda row: row.truth is None)), out)
    except PhotoError as error:
        raise UserError(str(error)) from error
    return len(rows)


def _read_row(task: Task, root: Path) -> Row:
    photo, colorized = _open(task.source), _open(task.target)
    has_color = chroma_spread(photo) >= _GRAY_BELOW
    # Names need not be UTF-8.
    label = os.fsencode(task.target.relative_to(root).with_suffix("")).decode(errors="replace")
    return Row(label, luma(photo), colorized, photo if has_color else None)


def _open(path: Path) -> Image.Image:
    """Return the photograph, reduced or enlarged to fit into WIDTH x HEIGHT."""
    try:
        photo = open_photo(path)
    except PhotoError as error:
        raise PhotoError(error.reason, f"{path}: {error}") from error
    scale = min(WIDTH / photo.width, HEIGHT / photo.height)
    size = [max(1, round(side * scale)) for side in photo.size]
    return photo.resize((size[0], size[1]), Image.Resampling.LANCZOS)
