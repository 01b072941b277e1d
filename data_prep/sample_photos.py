"""Write the photographs that scikit-image and scikit-learn carry, for a first training.

    python -m data_prep.sample_photos --out DIR

DIR/train: parts of color photographs, at several scales. DIR/val: the part of each that is kept
out of training, and one whole photograph. DIR/gray: photographs that were captured in gray.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from math import ceil, sqrt
from pathlib import Path

from PIL import Image

from data_prep.photos import COLOR_PHOTOS, GRAY_PHOTOS, PackagedPhoto
from data_prep.shard_file import disk_errors
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.photos.photo import open_photo
from pix2pix.system.durable import publish

Box = tuple[int, int, int, int]  # left, upper, right, lower in pixels, as Pillow crops

# The cat is kept out whole: its fur and background have the warm browns that wood, skin and coffee
# teach, so a network that has learnt from the others has a fair chance with it.
KEPT_OUT = "chelsea"

# Kept out of the others: a side of the picture, from this share of its width or height on, chosen
# for having in it what the rest has too (sky and trees, saucer and wood, petals and leaves).
VAL_FROM = {
    "astronaut": ("lower", 0.62),
    "china": ("right", 0.66),
    "coffee": ("right", 0.64),
    "flower": ("right", 0.55),
    "motorcycle": ("right", 0.66),
    "rocket": ("right", 0.66),
}

_SCALES = (1.0, 0.7, 0.5)  # sides of square regions, as shares of the root of the part's area


@dataclass(frozen=True)
class SamplePhotosOptions:
    """Flags of `python -m data_prep.sample_photos`."""

    out: Path = option(help="folder for train, val, gray and CREDITS.txt", metavar="DIR")


def write_sample_photos(options: SamplePhotosOptions) -> int:
    """Write the photographs that scikit-image and scikit-learn carry, for a first training.

    What is there already is left as it is. Needs `pip install -e '.[demo]'`.
    """
    files = dict(_files())
    with disk_errors(options.out):
        for name, data in files.items():
            path = options.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != data:
                publish(path, data)
    counts = [sum(name.startswith(part) for name in files) for part in ("train", "val", "gray")]
    print(
        f"{options.out}: {counts[0]} regions for train, {counts[1]} for val, "
        f"{counts[2]} gray; see CREDITS.txt"
    )
    return 0


def split_boxes(name: str, size: tuple[int, int]) -> tuple[Box, Box]:
    """Return the training and the kept-out part of the photograph `name`: disjoint boxes."""
    width, height = size
    side, share = VAL_FROM[name]
    if side == "right":
        edge = round(share * width)
        return (0, 0, edge, height), (edge, 0, width, height)
    edge = round(share * height)
    return (0, 0, width, edge), (0, edge, width, height)


def region_boxes(part: Box) -> Iterator[Box]:
    """Yield the whole of `part`, then overlapping squares of it at several scales."""
    yield part
    left, upper, right, lower = part
    width, height = right - left, lower - upper
    for scale in _SCALES:
        side = min(width, height, round(scale * sqrt(width * height)))
        for y, x in product(_starts(upper, lower, side), _starts(left, right, side)):
            yield x, y, x + side, y + side


def _starts(first: int, last: int, side: int) -> list[int]:
    """Return starts of squares that cover first..last evenly, each over half of the one before."""
    room = last - first - side
    steps = ceil(2 * room / side)
    return [first + round(room * step / steps) for step in range(steps + 1)] if steps else [first]


def _files() -> Iterator[tuple[str, bytes]]:
    for source in COLOR_PHOTOS:
        photo = open_photo(source.path)
        if source.name == KEPT_OUT:
            yield f"val/{source.name}.png", _png(photo)
            continue
        training, kept_out = split_boxes(source.name, photo.size)
        for number, box in enumerate(region_boxes(training)):
            yield f"train/{source.name}-{number:02d}.png", _png(photo.crop(box))
        yield f"val/{source.name}.png", _png(photo.crop(kept_out))
    for source in GRAY_PHOTOS:
        yield f"gray/{source.name}.png", _png(open_photo(source.path))
    yield "CREDITS.txt", "".join(_credit(source) for source in COLOR_PHOTOS + GRAY_PHOTOS).encode()


def _png(photo: Image.Image) -> bytes:
    file = BytesIO()
    photo.save(file, "PNG", compress_level=1)  # six times as fast as the default, 10 % larger
    return file.getvalue()


def _credit(source: PackagedPhoto) -> str:
    return f"{source.name}: {source.credit} (from {source.package}/{source.file})\n"


if __name__ == "__main__":
    main(write_sample_photos, SamplePhotosOptions)
