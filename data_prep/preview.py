"""Look at shards before training: some samples, and what all of them are like, as one picture.

    python -m data_prep.preview --shards DIR --out sheet.png

The same shards and --seed give the same picture.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from data_prep.shard_file import disk_errors
from data_prep.survey import (
    Measured,
    choose,
    choose_nearby,
    locate,
    measure,
    read_color,
    read_gray,
)
from pix2pix.cli.charts import (
    INK,
    SOFT,
    Mark,
    chart,
    draw_bars,
    draw_histogram,
    font,
    png,
    shorten,
)
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.cli.progress import bytes_text
from pix2pix.data.cache import ShardCache, cache_folder
from pix2pix.data.data_set import DataSet
from pix2pix.data.shards import Split, open_split
from pix2pix.errors import UserError
from pix2pix.system.durable import publish
from pix2pix.system.urls import check_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MEASURED = 4000  # samples: a few seconds, and shares that are right to a percent
MOST_FETCHED = 4  # shards of a URL

WIDTH, MARGIN = 1600, 36  # of the sheet, pixels
COLUMNS, GUTTER = 3, 28  # pairs in a row, and what is between them
PAIR_WIDTH = (WIDTH - 2 * MARGIN + GUTTER) // COLUMNS - GUTTER
GAP = 4  # between gray and color
PICTURE_WIDTH = (PAIR_WIDTH - GAP) // 2
PICTURE_HEIGHT = PICTURE_WIDTH * 3 // 4
CAPTION = 14  # height of letters
PITCH = PICTURE_HEIGHT + CAPTION + 26  # from row to row
CHARTS_TOP, CHARTS_HEIGHT = 112, 300
PAIRS_TOP = CHARTS_TOP + CHARTS_HEIGHT + 32


@dataclass(frozen=True)
class PreviewOptions:
    """Flags of `python -m data_prep.preview`."""

    shards: str = option(help="folder or URL of shards, with their manifest", metavar="DIR|URL")
    out: Path = option(help="picture to write, such as sheet.png", metavar="FILE")
    split: str = option("train", help="which split to look at", metavar="NAME")
    num_pairs: int = option(24, help="pairs to show", unit="pairs")
    seed: int = option(0, help="of the choice of samples")
    shards_cache: str | None = option(
        None, help="where shards of a URL are kept; none is as in training", metavar="DIR"
    )

    def __post_init__(self) -> None:
        check_place(str(self.shards), "shards")
        if self.out.suffix.lower() != ".png":
            raise UserError(f"--out {self.out}: give a name that ends in .png")
        if not self.out.parent.is_dir():
            raise UserError(f"--out {self.out}: there is no folder {self.out.parent}; make it")
        if not 1 <= self.num_pairs <= MOST_MEASURED:
            raise UserError(f"--num_pairs {self.num_pairs}: give 1 to {MOST_MEASURED}")


def preview(options: PreviewOptions) -> int:
    """Draw samples of a split, and how its color and sizes are spread, as one picture.

    Samples are chosen from all shards by --seed; up to 4,000 of them are measured.
    """
    root = os.path.expanduser(options.shards)
    data = DataSet(root, open_split(root, options.split))
    split, pick = data.split, choose
    if data.needs_cache:
        data = replace(data, cache=ShardCache(cache_folder(options.shards_cache)))
        pick = partial(choose_nearby, most_shards=MOST_FETCHED)
        print(f"from {MOST_FETCHED} of {len(split.shards):,} shards at most, which are fetched")
    chosen = pick(split.sample_counts, MOST_MEASURED, options.seed)
    shown = set(pick(split.sample_counts, options.num_pairs, options.seed))
    samples = measure(locate(data, chosen))
    pairs = [one for place, one in zip(chosen, samples, strict=True) if place in shown]
    picture = png(draw_sheet(split, samples, pairs, options.seed))
    with disk_errors(options.out.parent):
        publish(options.out, picture)
    print(f"{len(pairs)} of {split.num_samples:,} samples: {options.out}")
    return 0


def draw_sheet(
    split: Split, samples: Sequence[Measured], pairs: Sequence[Measured], seed: int
) -> Image.Image:
    """Return the sheet: charts of `samples`, then `pairs`, gray beside color; mode "RGB"."""
    height = PAIRS_TOP + -(-len(pairs) // COLUMNS) * PITCH + MARGIN
    sheet = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(sheet)
    _draw_heading(draw, split, len(pairs), seed)
    for column, picture in enumerate(_charts(split, samples)):
        sheet.paste(picture, (pair_place(column)[0], CHARTS_TOP))
    for number, pair in enumerate(pairs):
        left, top = pair_place(number)
        gray = _thumbnail(read_gray(pair.sample))
        color = _thumbnail(read_color(pair.sample))
        sheet.paste(gray, (left, top))
        sheet.paste(color, (left + gray.width + GAP, top))
        key = f"{pair.sample.key}  "
        source = shorten(pair.source, CAPTION, PAIR_WIDTH - round(font(CAPTION).getlength(key)))
        draw.text((left, top + color.height + 6), key + source, SOFT, font(CAPTION))
    return sheet


def pair_place(number: int) -> tuple[int, int]:
    """Return left and top of the gray picture of the `number`-th pair, in pixels."""
    row, column = divmod(number, COLUMNS)
    return MARGIN + column * (PAIR_WIDTH + GUTTER), PAIRS_TOP + row * PITCH


def _draw_heading(draw: ImageDraw.ImageDraw, split: Split, num_pairs: int, seed: int) -> None:
    draw.text((MARGIN, MARGIN - 8), f"Split {split.name}", INK, font(34))
    size = bytes_text(sum(shard.bytes for shard in split.shards))
    plural = "" if len(split.shards) == 1 else "s"
    side = f"; short side {split.short_side} pixels" if split.kind == "pairs" else ""
    line = (
        f"{split.num_samples:,} samples in {len(split.shards):,} shard{plural}, {size}{side}. "
        f"Below: {num_pairs} of them, chosen by seed {seed}."
    )
    draw.text((MARGIN, MARGIN + 36), line, SOFT, font(18))


def _charts(split: Split, samples: Sequence[Measured]) -> list[Image.Image]:
    size = (PAIR_WIDTH, CHARTS_HEIGHT)
    chromas = [sample.chroma for sample in samples]
    sides = [min(sample.photo_width, sample.photo_height) for sample in samples]
    min_chroma, min_side = split.prep["min_chroma"], split.prep["min_short_side"]
    marks = [Mark(min_side, f"min_short_side {min_side}")]
    if split.kind == "pairs" and split.short_side != min_side:
        marks.append(Mark(split.short_side, f"short_side {split.short_side}"))
    rejected = sum(split.rejected.values())
    total = split.num_samples + rejected

    def draw_color(axes: "Axes") -> None:
        title = f"Color of {len(samples):,} samples: median {median(chromas):.0f}"
        mark = Mark(min_chroma, f"min_chroma {min_chroma:g}")
        draw_histogram(axes, title, "chroma spread, 0 to 255", chromas, [mark], lowest=0)

    def draw_sizes(axes: "Axes") -> None:
        title = f"Size of {len(samples):,} photographs: median {median(sides):.0f}"
        draw_histogram(axes, title, "short side of the photograph, pixels", sides, marks)

    def draw_rejects(axes: "Axes") -> None:
        title = f"Left out: {rejected:,} of {total:,} ({rejected / total:.1%})"
        draw_bars(axes, title, split.rejected, total)

    return [chart(size, draw) for draw in (draw_color, draw_sizes, draw_rejects)]


def _thumbnail(picture: Image.Image) -> Image.Image:
    scale = min(PICTURE_WIDTH / picture.width, PICTURE_HEIGHT / picture.height)
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def command() -> None:
    """`pix2pix-preview-shards`, and this file."""
    main(preview, PreviewOptions)


if __name__ == "__main__":
    command()
