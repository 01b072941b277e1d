"""The codecs of data preparation alone: how fast they are, and what they cost in quality."""

import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.found_shard import MEASURED_SIDE
from data_prep.pairs import JPEG_QUALITY
from data_prep.photos import Photo, Source
from pix2pix.data.tar_members import members
from pix2pix.photos.photo import luma, open_photo, open_reduced
from pix2pix.photos.resize import HEADROOM, picture_size, resize
from pix2pix.system.machine import keep_freed_memory

_EQUAL_DECIBELS = 100.0  # in place of infinity


def codec_rate(
    source: Source, photos: Sequence[Photo], short_side: int, num_processes: int, num_pairs: int
) -> float:
    """Return pairs per second of `num_processes` together; a single one is this process.

    photos: upright JPEGs in color. Each process holds them all in memory.
    """
    started = time.perf_counter()
    share = math.ceil(num_pairs / num_processes)
    if num_processes == 1:
        encode_pairs(source, photos, short_side, share)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_processes, context) as pool:
            work = partial(encode_pairs, source, photos, short_side, share)
            for process in [pool.submit(work) for _ in range(num_processes)]:
                process.result()
    return share * num_processes / (time.perf_counter() - started)


def encode_pairs(source: Source, photos: Sequence[Photo], short_side: int, num_pairs: int) -> None:
    """Encode `num_pairs` pairs, of one photograph after the other, and throw them away."""
    keep_freed_memory()
    files = [source.read(photo) for photo in photos[:num_pairs]]
    for file in islice(cycle(files), num_pairs):
        encode_pair(file, short_side)


def encode_pair(file: bytes, short_side: int) -> tuple[bytes, bytes]:
    """Return (gray, color) JPEGs of an upright color JPEG: the codecs of a pair alone."""
    photo = Image.open(BytesIO(file))
    size = picture_size(photo.width, photo.height, short_side)
    photo.draft(None, (HEADROOM * short_side, HEADROOM * short_side))
    photo.load()
    color = resize(photo, size)
    return _encode(luma(color)), _encode(color)


def read_and_decode(paths: Sequence[Path], side: int | None = MEASURED_SIDE) -> None:
    """Read the tars front to back and decode their pictures, at a fraction that keeps `side`."""
    keep_freed_memory()
    for path in paths:
        for picture in pictures_in(path):
            photo = Image.open(BytesIO(picture))
            if side is not None:
                photo.draft("RGB", (side, side))
            photo.load()


def pictures_in(tar: Path) -> Iterator[bytes]:
    """Return the members of a tar, one after the other."""
    with tar.open("rb", buffering=0) as file:
        for member in members(file.fileno()):
            yield os.pread(file.fileno(), member.size, member.offset)


def psnr_of_path(files: Sequence[bytes], short_side: int) -> float:
    """Return the mean PSNR in dB of our pictures, against whole decoding and Pillow's Lanczos.

    It is 20 log10(255 / root mean square difference); 100 where the two are equal.
    """
    return statistics.mean(_psnr(file, short_side) for file in files)


def _psnr(file: bytes, short_side: int) -> float:
    (photo, _), whole = open_reduced(file, HEADROOM * short_side), open_photo(file)
    size = picture_size(whole.width, whole.height, short_side)
    expected = np.asarray(whole.resize(size, Image.Resampling.LANCZOS), dtype=np.float64)
    error = float(((np.asarray(resize(photo, size)) - expected) ** 2).mean())
    return min(_EQUAL_DECIBELS, 10 * math.log10(255**2 / error)) if error else _EQUAL_DECIBELS


def _encode(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()
