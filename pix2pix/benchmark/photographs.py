"""Synthetic photographs for benchmarks: as large as COCO's, and as costly to decode."""

from pathlib import Path

import numpy as np
from PIL import Image

_SIZES = ((640, 480), (640, 427), (480, 640))  # pixels; more than half of COCO's photographs


def write_photographs(folder: Path, count: int) -> None:
    """Write `count` color JPEGs of about 150 KB each, as COCO has them, into `folder`."""
    folder.mkdir()
    for number in range(count):
        photo = _clouds(np.random.default_rng(number), *_SIZES[number % len(_SIZES)])
        photo.save(folder / f"{number:04d}.jpg", quality=90, subsampling="4:2:0")


def _clouds(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return noise of all scales, much of it gray; its fine detail gives files of COCO's size."""
    total = np.full((height, width, 3), 127.5)
    cells = 4  # across the picture
    while cells <= width:
        noise = rng.normal(size=(cells, cells, 1)) + 0.4 * rng.normal(size=(cells, cells, 3))
        coarse = Image.fromarray(np.clip(127.5 + 40 * noise, 0, 255).astype(np.uint8))
        total += (np.asarray(coarse.resize((width, height))) - 127.5) * 2.7 * cells**-0.3
        cells *= 2
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))
