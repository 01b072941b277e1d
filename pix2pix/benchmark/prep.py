"""Data preparation beside its codecs: rate, memory of a worker, picture quality; indexing.

The codecs work out of memory and into it; preparation reads, judges and writes durable shards.
Both make as many pairs with as many processes, timed from call to return, and take turns.
"""

import math
import multiprocessing
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from PIL import Image
from tqdm import tqdm

from data_prep.pairs import PairSettings, make_pair
from data_prep.photos import FolderSource, Photo, digest_photos
from data_prep.shard_file import Prep, ShardTask, make_shard
from data_prep.workers import work_in_parallel
from pix2pix.benchmark.codecs import codec_rate, psnr_of_path
from pix2pix.benchmark.options import PrepOptions
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.benchmark.report import spread
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError
from pix2pix.photos.resize import RESIZER
from pix2pix.system.machine import num_cores, peak_memory

_SETTINGS = PairSettings(short_side=286, min_short_side=256, min_chroma=4.0)  # make_shards' own
_SAMPLES_PER_SHARD = 1000  # its own, too
_MOST_PHOTOS = 200  # different ones; every process of the codecs holds them in memory
_SYNTHETIC_PHOTOS = 48
_TRIAL_PAIRS = 100  # to learn how many make a turn


def measure(options: PrepOptions) -> dict[str, float | int | str]:
    """Measure data preparation with one process and with `num_workers`; names carry the units.

    Raises UserError where no photograph can be used.
    """
    # Not above: the worker whose memory is measured imports this file, and that one imports torch.
    from pix2pix.benchmark.indexing import indexing_figures

    num_workers = options.num_workers or num_cores()
    with TemporaryDirectory(prefix="prep-") as folder:
        if options.photos is None:
            write_photographs(Path(folder, "photos"), _SYNTHETIC_PHOTOS)
        source = FolderSource(options.photos or Path(folder, "photos"))
        bench = _Bench(source, _usable(source), Path(folder, "shards"))
        rates = _take_turns(bench, num_workers, options)
        files = [source.read(photo) for photo in bench.photos]
        psnr = psnr_of_path(files, _SETTINGS.short_side)
        memory = bench.worker_memory()
        indexing = indexing_figures(
            files, Path(folder), num_workers, options.rounds, options.seconds_per_turn
        )
    figures: dict[str, float | int | str] = {
        "photos": f"{options.photos or 'synthetic'}, {len(bench.photos)} different ones",
        "num_workers": num_workers,
        "resizer": RESIZER,
    }
    for name, workers in (("", num_workers), ("one_process_", 1)):
        pairs, bound = median(rates["pairs", workers]), median(rates["bound", workers])
        figures[f"{name}pairs_per_second"] = pairs
        figures[f"{name}codec_bound_pairs_per_second"] = bound
        figures[f"{name}efficiency"] = pairs / bound
        figures[f"{name}spread"] = spread(rates["pairs", workers])
        figures[f"{name}codec_bound_spread"] = spread(rates["bound", workers])
    return {**figures, **indexing, "worker_megabytes": memory / 1e6, "psnr_decibels": psnr}


@dataclass(frozen=True)
class _Bench:
    """What is prepared; each turn writes to `root`, which is absent before and after."""

    source: FolderSource
    photos: list[Photo]
    root: Path

    def codec_rate(self, num_workers: int, num_pairs: int) -> float:
        """Return pairs per second of the codecs alone."""
        return codec_rate(self.source, self.photos, _SETTINGS.short_side, num_workers, num_pairs)

    def preparation_rate(self, num_workers: int, num_photos: int) -> float:
        """Return pairs per second, from call to return."""
        with self._emptied():
            tasks = self._tasks(num_workers, num_photos)
            started = time.perf_counter()
            work_in_parallel(make_shard, tasks, num_workers, lambda count: None)
            seconds = time.perf_counter() - started
            tars = sum(task.tar.is_file() for task in tasks)
            assert tars == len(tasks), "a photograph that makes no pair was not left out before"
        return num_photos / seconds

    def worker_memory(self) -> int:
        """Return the most bytes that a worker process holds while it makes a shard."""
        context = multiprocessing.get_context("spawn")
        with self._emptied(), ProcessPoolExecutor(1, context) as pool:
            (task,) = self._tasks(1, len(self.photos))
            return pool.submit(_memory_of, task).result()

    def _tasks(self, num_workers: int, num_photos: int) -> list[ShardTask]:
        """Return shards of at most the usual size, as many for one worker as for another."""
        prep = Prep(
            photos=digest_photos(self.photos),
            num_photos=num_photos,
            seed=0,
            val_fraction=0.0,
            samples_per_shard=_SAMPLES_PER_SHARD,
            **asdict(_SETTINGS),
        )
        turns = math.ceil(num_photos / (num_workers * _SAMPLES_PER_SHARD))
        size = math.ceil(num_photos / (num_workers * turns))
        members = list(enumerate(islice(cycle(self.photos), num_photos)))
        slices = [tuple(members[start : start + size]) for start in range(0, num_photos, size)]
        return [
            ShardTask(self.root, "train", index, self.source, prep, part)
            for index, part in enumerate(slices)
        ]

    @contextmanager
    def _emptied(self) -> Iterator[None]:
        self.root.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(self.root)


def _take_turns(
    bench: _Bench, num_workers: int, options: PrepOptions
) -> Mapping[tuple[str, int], list[float]]:
    """Return rates by (side, number of processes), a value per round."""
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    num_pairs = math.ceil(bench.codec_rate(1, _TRIAL_PAIRS) * options.seconds_per_turn)
    for _ in tqdm(range(options.rounds), unit=" rounds", ncols=80, disable=None, leave=False):
        for workers in sorted({1, num_workers}):
            rates["bound", workers].append(bench.codec_rate(workers, workers * num_pairs))
            rates["pairs", workers].append(bench.preparation_rate(workers, workers * num_pairs))
    return rates


def _usable(source: FolderSource) -> list[Photo]:
    """Return JPEGs in color that make a pair, from all over the source."""
    photos = source.list_photos()
    chosen = photos[:: math.ceil(len(photos) / _MOST_PHOTOS)]
    usable = [photo for photo in chosen if _makes_a_pair(source.read(photo))]
    if not usable:
        raise UserError(f"--photos {source.root}: no color JPEG there that makes a pair")
    return usable


def _makes_a_pair(file: bytes) -> bool:
    try:
        make_pair(file, _SETTINGS)
    except PhotoError:
        return False
    photo = Image.open(BytesIO(file))
    return photo.format == "JPEG" and photo.mode == "RGB"


def _memory_of(task: ShardTask) -> int:
    make_shard(task, lambda: None)
    return peak_memory()
