"""A loader worker of one rank among many, simulated: does it stay as fast when ranks are many?

With more ranks a worker reads fewer samples of more shards. All shards are links to one small tar,
so that everything fits the page cache: what differs is what a worker does to find a sample. It is
timed by the CPU time of this process, so that others on the machine matter less.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from data_prep.make_shards import MakeShardsOptions, make_shards
from pix2pix.benchmark.options import LoaderOptions
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.benchmark.report import Figures, spread
from pix2pix.benchmark.training import quietly
from pix2pix.cli.progress import progress
from pix2pix.config import TrainConfig
from pix2pix.data.batches import TrainMicroBatches
from pix2pix.data.data_set import DataSet
from pix2pix.data.index import as_keys, index_path, index_shard, write_index
from pix2pix.data.reader import ShardReader
from pix2pix.data.shards import Split, open_split
from pix2pix.system.machine import keep_freed_memory

_IMAGE_SIZE = 256  # pixels
_PHOTOS = 48  # different ones
_SAMPLES = 1000  # a shard; make_shards' own number
_WORKERS = 8  # of each rank; one of them works here


def simulate(options: LoaderOptions) -> Figures:
    """Measure samples per second of one worker, for each number of ranks, by turns."""
    ranks = options.simulate_ranks or (1,)
    torch.set_num_threads(1)  # as in a worker
    keep_freed_memory()
    with TemporaryDirectory(prefix="ranks-") as folder:
        data = _linked(Path(folder), options.simulate_shards)
        _rate(data, ranks[0], options, 2)  # what only the first call needs
        rates: dict[int, list[float]] = {count: [] for count in ranks}
        with progress("turns", options.rounds * len(ranks), title="loader") as bar:
            for _ in range(options.rounds):
                for count in ranks:
                    rates[count].append(_rate(data, count, options, options.num_batches))
                    bar.update()
    figures: dict[str, float | int | str] = {
        "shards": options.simulate_shards,
        "samples_per_shard": _SAMPLES,
        "workers_per_rank": _WORKERS,
        "batch_size": options.batch_size,
        "batches": options.num_batches,
    }
    for count in ranks:
        figures[f"ranks_{count}_samples_per_second"] = median(rates[count])
        figures[f"ranks_{count}_spread"] = spread(rates[count])
        figures[f"ranks_{count}_share"] = _share(rates[count], rates[ranks[0]])
    return figures


def _share(rates: Sequence[float], first: Sequence[float]) -> float:
    """Median over rounds of the rate by that of the first number of ranks in the same round."""
    return median(rate / one for rate, one in zip(rates, first, strict=True))


def _linked(folder: Path, num_shards: int) -> DataSet:
    """Return a data set of `num_shards` shards of 1,000 samples, all of them links to one tar."""
    write_photographs(folder / "photos", _PHOTOS)
    root = folder / "shards"
    with quietly():
        make_shards(MakeShardsOptions(photos=folder / "photos", out=root, split="train"))
    split = open_split(root, "train")
    (one,) = split.shards
    index = index_shard(root / one.name, one.sha256)
    again = np.arange(_SAMPLES) % index.num_samples
    keys = as_keys([f"{number:09d}".encode() for number in range(_SAMPLES)])
    places = {member: table[again] for member, table in index.places.items()}
    write_index(index_path(root, one.name), replace(index, keys=keys, places=places))
    shards = []
    for number in range(num_shards):
        shard = replace(one, name=f"linked-{number:06d}.tar", num_samples=_SAMPLES)
        os.link(root / one.name, root / shard.name)
        os.link(index_path(root, one.name), index_path(root, shard.name))
        shards.append(shard)
    return DataSet(str(root), Split("train", tuple(shards), split.prep, {}))


def _rate(data: DataSet, ranks: int, options: LoaderOptions, num_batches: int) -> float:
    """Return samples per second of CPU time of a worker that has just started."""
    reader = ShardReader([data], _IMAGE_SIZE)
    config = TrainConfig(shards=(".",), run_dir=Path(), global_batch=ranks * options.batch_size)
    batches = TrainMicroBatches(reader, config, rank=ranks // 2, world_size=ranks)
    pixels = np.empty(batches.num_bytes(0), np.uint8)
    started = time.process_time()
    for number in range(num_batches):
        batch = batches.decode(number * _WORKERS, pixels)
        assert batch.broken is None, batch.broken
    return num_batches * options.batch_size / (time.process_time() - started)
