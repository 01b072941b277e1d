"""Measures the memory that opening and coloring take per pixel, with the process that decodes.

    python -m tests.photos.memory [open|color] [FORMAT ...]

A file of each format is made at two sizes; the difference of the two peaks has none of what every
process takes. Opening: beyond the array and the file, in bytes per pixel. Coloring: all of it.
"""

import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pix2pix.photos.coloring import colorize_files
from pix2pix.photos.files import Plan, Task
from pix2pix.photos.photo import open_picture
from pix2pix.photos.picture import read_upright
from tests.photos.odd_files import by_pillow, tiff

SIDES = (1200, 2600)  # pixels
TINY = 64
MANY = 10**9


def samples(side: int, channels: int, bits: int = 8) -> np.ndarray:
    """A smooth picture with some noise: [side, side] or [side, side, channels]."""
    x = np.linspace(0, 2.0**bits - 256, side, dtype=np.float32)
    noise = np.random.default_rng(0).integers(0, 16, (side, side, channels), dtype=np.uint8)
    plane = ((x[:, None] + x[None]) / 2)[..., None] + noise
    pixels = np.clip(plane, 0, 2**bits - 1).astype(np.uint8 if bits == 8 else np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


def _heic(side: int, bits: int) -> bytes:
    import pillow_heif

    file, out = pillow_heif.HeifFile(), io.BytesIO()
    pixels = samples(side, 3, 8 if bits == 8 else 16)
    file.add_frombytes("RGB" if bits == 8 else "RGB;16", (side, side), pixels.tobytes())
    file.save(out, quality=60, enc_params={"preset": "ultrafast"})
    return out.getvalue()


def _codec(name: str, channels: int, bits: int, **options: Any) -> Callable[[int], bytes]:
    def encode(side: int) -> bytes:
        import imagecodecs

        pixels = samples(side, channels, bits)
        return bytes(getattr(imagecodecs, f"{name}_encode")(pixels, **options))

    return encode


FORMATS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "jpeg": (".jpg", lambda side: by_pillow(samples(side, 3), "JPEG", quality=80)),
    "png gray16": (".png", _codec("png", 1, 16, level=1)),
    "png rgb16": (".png", _codec("png", 3, 16, level=1)),
    "ppm rgb16": (
        ".ppm",
        lambda side: b"P6 %d %d 65535\n" % (side, side) + samples(side, 3, 16).byteswap().tobytes(),
    ),
    "tiff gray16": (".tif", lambda side: tiff(samples(side, 1, 16), rowsperstrip=64)),
    "tiff rgb16": (".tif", lambda side: tiff(samples(side, 3, 16), rowsperstrip=64)),
    "jp2 rgb8": (".jp2", _codec("jpeg2k", 3, 8, level=30)),
    "jp2 gray16": (".jp2", _codec("jpeg2k", 1, 16, level=30)),
    "jp2 rgb16": (".jp2", _codec("jpeg2k", 3, 16, level=30)),
    "jxl rgb8": (".jxl", _codec("jpegxl", 3, 8, effort=1)),
    "jxl gray16": (".jxl", _codec("jpegxl", 1, 16, effort=1)),
    "jxl rgb16": (".jxl", _codec("jpegxl", 3, 16, effort=1)),
    "avif rgb8": (".avif", lambda side: by_pillow(samples(side, 3), "AVIF", speed=10)),
    "avif rgb10": (".avif", _codec("avif", 3, 10, level=60, speed=10, bitspersample=10)),
    "heic rgb8": (".heic", lambda side: _heic(side, 8)),
    "heic rgb10": (".heic", lambda side: _heic(side, 10)),
}  # fmt: skip


def resident() -> int:
    """Bytes that this process and those that it started hold."""
    me = psutil.Process()
    total = me.memory_info().rss
    for child in me.children():
        try:
            total += child.memory_info().rss
        except psutil.Error:
            continue
    return total


def peak_of(work: Callable[[], Any]) -> int:
    """Return how many bytes more than before are held at most while `work` runs."""
    before, ended = resident(), threading.Event()
    peaks = [before]

    def watch() -> None:
        while not ended.is_set():
            peaks[0] = max(peaks[0], resident())
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    work()
    ended.set()
    watching.join()
    return peaks[0] - before


def open_one(path: Path) -> np.ndarray:
    picture = open_picture(path, MANY)
    try:
        return read_upright(picture, 0)
    finally:
        picture.close()


def measure(job: str, tiny: Path, path: Path) -> dict[str, int]:
    """Measure one file in this process, after a tiny one that loads what is needed."""
    if job == "open":
        open_one(tiny)
        array_bytes = []
        peak = peak_of(lambda: array_bytes.append(open_one(path).nbytes))
        return {"peak": peak - array_bytes[0]}
    import torch

    from pix2pix.colorizing.colorizer import Colorizer
    from pix2pix.export.generator import Generator

    torch.set_num_threads(1)
    generator = Generator(image_size=64, width=8)
    colorizer = Colorizer(generator, generator.color_space, generator.image_size)

    def color(source: Path) -> None:
        suffix = source.suffix if source.suffix in (".jpg", ".png", ".tif") else ".png"
        task = Task(source, source.with_name(f"colored{suffix}"))
        plan = Plan([task], [], task.target.parent)
        assert colorize_files(colorizer.colorize_array, plan, max_pixels=MANY).is_complete

    color(tiny)
    return {"peak": peak_of(lambda: color(path))}


def bytes_per_pixel(job: str, name: str) -> float:
    """Return the difference of two peaks by the difference of two sizes."""
    suffix, encode = FORMATS[name]
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder, f"tiny{suffix}")
        tiny.write_bytes(encode(TINY))
        for side in SIDES:
            path = Path(folder, f"{side}{suffix}")
            path.write_bytes(encode(side))
            command = [sys.executable, "-m", "tests.photos.memory", "--", job, str(tiny), str(path)]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                raise SystemExit(answer.stderr[-2000:])
            peak = json.loads(answer.stdout.splitlines()[-1])["peak"]
            peaks.append(peak - path.stat().st_size if job == "open" else peak)
    return (peaks[1] - peaks[0]) / (SIDES[1] ** 2 - SIDES[0] ** 2)


def main(words: list[str]) -> None:
    """Print a line for each job and format."""
    jobs = [word for word in words if word in ("open", "color")] or ["open", "color"]
    names = [word for word in words if word in FORMATS] or list(FORMATS)
    for job in jobs:
        for name in names:
            print(
                f"{job:5} {name:12} {bytes_per_pixel(job, name):5.1f} bytes per pixel", flush=True
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main(sys.argv[1:])
