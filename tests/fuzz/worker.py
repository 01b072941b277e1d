"""Opens damaged files of one format in a process of its own; `__main__.py` starts it.

python -m tests.fuzz.worker FORMAT FIRST COUNT SECONDS

A line of JSON before each file names it, so that a crash is known by what was said last.
"""

import json
import resource
import sys
import time
import traceback
from collections import Counter

import numpy as np

from pix2pix.photos.helper import stop_helpers
from pix2pix.photos.photo import open_picture
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import read_gray
from pix2pix.system.machine import peak_memory
from tests.fuzz.seeds import SEEDS, mutate

MAX_PIXELS = 16_000_000  # what a damaged head may claim
MOST_PAGES = 3
KIB = 1024


def open_all(data: bytes) -> None:
    """Everything that coloring asks of a file."""
    picture = open_picture(data, MAX_PIXELS)
    try:
        _ = picture.metadata
        for index in range(min(picture.num_pages, MOST_PAGES)):
            read_gray(picture, index)
    finally:
        picture.close()


def main(kind: str, first: int, count: int, seconds: float) -> None:
    seeds = SEEDS[kind]()
    for seed in seeds:
        open_all(seed)  # or it would fuzz nothing
    outcomes: Counter[str] = Counter()
    slowest, deadline = 0.0, time.monotonic() + seconds
    for number in range(first, first + count):
        if time.monotonic() > deadline:
            break
        rng = np.random.default_rng([number, *kind.encode()])
        data = mutate(seeds[number % len(seeds)], rng)
        print(json.dumps({"at": number}), flush=True)
        started = time.monotonic()
        try:
            open_all(data)
            outcomes["picture"] += 1
        except PhotoError as error:
            outcomes[error.reason] += 1
        except Exception:
            outcomes["traceback"] += 1
            print(json.dumps({"traceback": number, "text": traceback.format_exc()}), flush=True)
        slowest = max(slowest, time.monotonic() - started)
    stop_helpers()
    helpers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIB
    peak_bytes = max(peak_memory(), helpers)
    print(json.dumps({"outcomes": outcomes, "slowest": slowest, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
