"""Indexing tars that others packed, beside reading them and decoding their pictures.

The bound decodes at the fraction of the size at which color is measured, 1/2 for COCO's originals;
a second one decodes whole. A tar has up to 1,000 photographs that differ in a comment, as real ones
are not copies. All processes read the same one, by links: what indexing finds out about copies
between tars is a comparison of digests, however many there are.
"""

import math
import multiprocessing
import os
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from shutil import rmtree
from statistics import median

from data_prep.found_shard import MEASURED_SIDE
from pix2pix.benchmark.codecs import read_and_decode
from pix2pix.benchmark.loader_indexed import index
from pix2pix.benchmark.report import Figures, spread

_MOST_IN_A_TAR = 1000  # samples; others pack that many and more
_TRIAL = 50  # pictures, to learn how many make a turn

Seconds = tuple[float, float]  # by the clock, and of all processes' CPU time


def indexing_figures(
    pictures: Sequence[bytes], folder: Path, num_workers: int, rounds: int, seconds_per_turn: float
) -> Figures:
    """Measure indexing beside reading and decoding with as many processes, by turns.

    pictures: JPEGs. `folder` gets a tar of them, 160 MB of COCO's.
    """
    trial = _pack(pictures, folder / "trial.tar", _TRIAL)
    wanted = math.ceil(_TRIAL * seconds_per_turn / _timed(partial(read_and_decode, [trial]))[0])
    count = min(wanted, _MOST_IN_A_TAR)
    one = _pack(pictures, folder / "one.tar", count)
    tars = folder / "many"
    tars.mkdir()
    num_tars = num_workers * math.ceil(wanted / count)
    for number in range(num_tars):
        os.link(one, tars / f"{number:05d}.tar")
    sides = {
        "bound": partial(_decode_all, tars, MEASURED_SIDE, num_workers),
        "whole": partial(_decode_all, tars, None, num_workers),
        "ours": partial(_index_all, tars, folder / "index", num_workers),
    }
    seconds: dict[str, list[Seconds]] = defaultdict(list)
    for _ in range(rounds):
        for name, work in sides.items():
            seconds[name].append(_timed(work))
    rates = {
        name: [count * num_tars / clock for clock, _ in turns] for name, turns in seconds.items()
    }
    return _figures(seconds, rates)


def _figures(
    seconds: Mapping[str, Sequence[Seconds]], rates: Mapping[str, Sequence[float]]
) -> Figures:
    ours, bound, whole = (median(rates[name]) for name in ("ours", "bound", "whole"))
    return {
        "indexed_per_second": ours,
        "read_and_decode_bound_per_second": bound,
        "indexing_efficiency": ours / bound,
        "indexing_cpu_efficiency": _cpu_ratio(seconds["bound"], seconds["ours"]),
        "read_and_decode_whole_per_second": whole,
        "indexing_to_whole_decoding": ours / whole,
        "indexing_cpu_to_whole_decoding": _cpu_ratio(seconds["whole"], seconds["ours"]),
        "indexing_spread": spread(rates["ours"]),
        "read_and_decode_bound_spread": spread(rates["bound"]),
    }


def _cpu_ratio(others: Sequence[Seconds], ours: Sequence[Seconds]) -> float:
    """Return the median over rounds of CPU seconds of another side by ours."""
    pairs = zip(others, ours, strict=True)
    return median(theirs / mine for (_, theirs), (_, mine) in pairs)


def _pack(pictures: Sequence[bytes], path: Path, count: int) -> Path:
    """Write a tar of `count` JPEGs, each with a comment of its own, and return its path."""
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(islice(cycle(pictures), count)):
            comment = f"picture {number}".encode()
            segment = b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment
            data = picture[:2] + segment + picture[2:]  # after the mark that begins a JPEG
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
    return path


def _timed(work: Callable[[], object]) -> Seconds:
    cpu, clock = _cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - clock, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """Return seconds of CPU of this process, and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _index_all(tars: Path, out: Path, num_workers: int) -> None:
    index(tars, out, num_workers)
    rmtree(out)


def _decode_all(tars: Path, side: int | None, num_workers: int) -> None:
    """Read and decode all tars, with one process in this one, as indexing does."""
    work = partial(read_and_decode, side=side)
    shares = [[path] for path in sorted(tars.iterdir())]
    if num_workers == 1:
        list(map(work, shares))
        return
    with ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(work, shares))
