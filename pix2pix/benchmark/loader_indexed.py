"""Photographs as others packed them, in tars: reading and indexing them beside decoding alone.

Their decoder works at the same fraction of the size. For the loader it resizes the same square as
well; for indexing it reads the same tars.
"""

import contextlib
import io
import math
import multiprocessing
import os
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from statistics import median

from PIL import Image

from data_prep.index_shards import IndexShardsOptions, index_shards
from data_prep.photos import FolderSource
from pix2pix.benchmark.codecs import pictures_in, read_and_decode
from pix2pix.benchmark.report import Figures, spread
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


def indexing_figures(
    photos: Path, folder: Path, num_workers: int, rounds: int, seconds_per_turn: float
) -> Figures:
    """Measure indexing beside reading and decoding with as many processes, by turns."""
    few = pack(photos, folder / "few")
    started = time.perf_counter()
    count = read_and_decode(sorted(few.iterdir()))
    repeats = math.ceil(seconds_per_turn * num_workers / (time.perf_counter() - started))
    tars = folder / "many"
    tars.mkdir()
    for path in few.iterdir():
        for number in range(repeats):
            os.link(path, tars / f"{number:04d}-{path.name}")
    rates: dict[str, list[float]] = {"ours": [], "bound": []}
    for _ in range(rounds):
        for name, work in (("bound", _decode_all), ("ours", _index_all)):
            started = time.perf_counter()
            work(tars, folder / "index", num_workers)
            rates[name].append(count * repeats / (time.perf_counter() - started))
    ours, bound = (median(rates[name]) for name in ("ours", "bound"))
    return {
        "indexed_per_second": ours,
        "read_and_decode_bound_per_second": bound,
        "indexing_efficiency": ours / bound,
        "indexing_spread": spread(rates["ours"]),
        "read_and_decode_bound_spread": spread(rates["bound"]),
    }


def _index_all(tars: Path, out: Path, num_workers: int) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # links of few pictures: many are copies
        index(tars, out, num_workers)
    rmtree(out)


def _decode_all(tars: Path, out: Path, num_workers: int) -> None:
    paths = sorted(tars.iterdir())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context) as pool:
        list(pool.map(read_and_decode, [[path] for path in paths]))
