"""Small synthetic photographs for tests: smooth, colorful, each another one."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def colorful(width: int = 80, height: int = 64, seed: int = 0) -> Image.Image:
    """A smooth RGB picture with hues all over it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    waves = [
        np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0.3, 1.5, size=(3, 3))
    ]
    return Image.fromarray((np.dstack(waves) * 110 + 128).astype(np.uint8))


def grayish(width: int = 80, height: int = 64, spread: int = 0) -> Image.Image:
    """An RGB picture whose red exceeds green and blue by `spread` everywhere."""
    gray = np.asarray(colorful(width, height).convert("L")).astype(np.int64) // 2
    return Image.fromarray(np.dstack([gray + spread, gray, gray]).astype(np.uint8))


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def write_folder(folder: Path, count: int, width: int = 80, height: int = 64) -> Path:
    """`count` colorful JPEGs in `folder` and one below it."""
    for number in range(count):
        path = folder / ("sub" if number % 3 == 0 else "") / f"photo {number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(colorful(width, height, seed=number)))
    return folder
