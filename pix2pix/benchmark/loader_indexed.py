"""Photographs as others packed them, in tars, for the loader; and its bound, decoding alone.

The bound decodes at the same fraction of the size, and resizes the same square.
"""

import math
import tarfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from data_prep.index_shards import IndexShardsOptions, index_shards
from data_prep.photos import FolderSource
from pix2pix.benchmark.codecs import pictures_in
from pix2pix.benchmark.training import quietly
from pix2pix.photos.resize import HEADROOM, picture_size, resize

_MOST_PHOTOS = 1000  # different ones
_TARS = 8


def pack(photos: Path, folder: Path) -> Path:
    """Write JPEGs of a folder into tars in `folder`, as others pack them, and return it."""
    folder.mkdir()
    source = FolderSource(photos)
    listed = [p for p in source.list_photos() if p.name.lower().endswith((".jpg", ".jpeg"))]
    chosen = listed[:: math.ceil(len(listed) / _MOST_PHOTOS)]
    size = math.ceil(len(chosen) / _TARS)
    for number, start in enumerate(range(0, len(chosen), size)):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for position, photo in enumerate(chosen[start : start + size], start):
                info = tarfile.TarInfo(f"{position:06d}.jpg")
                data = source.read(photo)
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    return folder


def index(tars: Path, out: Path, num_workers: int) -> None:
    """Index the tars of a folder, and say nothing."""
    with quietly():
        index_shards(IndexShardsOptions(shards=(str(tars),), out=out, num_workers=num_workers))


def pictures_of(tars: Path) -> list[bytes]:
    """Return the pictures of all tars of a folder."""
    return [picture for path in sorted(tars.iterdir()) for picture in pictures_in(path)]


def decode_square(picture: bytes, short_side: int, side: int) -> None:
    """Decode a JPEG at a fraction and resize the square in its middle: what no reader can avoid."""
    photo = Image.open(BytesIO(picture))
    width, height = picture_size(*photo.size, short_side)
    photo.draft("RGB", (HEADROOM * short_side, HEADROOM * short_side))
    rgb = photo.convert("RGB")
    across, down = rgb.width / width, rgb.height / height
    x, y = (width - side) // 2, (height - side) // 2
    box = (x * across, y * down, (x + side) * across, (y + side) * down)
    resize(rgb, (side, side), box)
