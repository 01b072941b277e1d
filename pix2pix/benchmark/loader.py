"""How fast the loader is: from a folder, a cache, tars of others; beside decoders alone.

All sides work in `num_workers` processes of torch's DataLoader, on the same photographs, reduced to
a short side of 286 and cut to squares of 256.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg

from data_prep.make_shards import MakeShardsOptions, make_shards
from pix2pix.benchmark.classic_loader import ImageFolder
from pix2pix.benchmark.loader_indexed import decode_square, index, pack, pictures_of
from pix2pix.benchmark.options import LoaderOptions
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.rounds import Timing
from pix2pix.benchmark.training import quietly
from pix2pix.cli.progress import progress
from pix2pix.config import TrainConfig
from pix2pix.data.batches import TrainMicroBatches, train_side
from pix2pix.data.data_set import open_data, with_cache
from pix2pix.data.index import index_shard
from pix2pix.data.reader import ShardReader
from pix2pix.data.stream import AHEAD, BatchStream
from pix2pix.system.machine import keep_freed_memory, num_cores

_IMAGE_SIZE = 256  # pixels
_SYNTHETIC_PHOTOS = 48
_MOST_DECODED = 1000  # pairs of JPEGs held in memory: 60 MB


def measure(options: LoaderOptions) -> Figures:
    """Measure samples per second of each side, for `num_workers` processes."""
    workers = options.num_workers or num_cores()
    with TemporaryDirectory(prefix="loader-") as folder:
        shards, pictures = Path(folder, "shards"), Path(folder, "pictures")
        reader = prepare(options, Path(folder, "photos"), shards)
        photos = options.photos or Path(folder, "photos")
        tars, indexed = pack(photos, Path(folder, "tars")), Path(folder, "indexed")
        index(tars, indexed, workers)
        indexed_reader = _reader(indexed)
        cached = _warm_cache(reader, Path(folder, "cache"))
        pairs = unpack(reader, pictures)
        side = train_side(reader)
        square = partial(decode_square, short_side=indexed_reader.short_side(0), side=side)
        originals = pictures_of(tars)
        sides = {
            "ours": lambda: _ours(reader, options, workers),
            "cached": lambda: _ours(cached, options, workers),
            "bound": lambda: _decode_only(pairs, _decode_pair, options, workers),
            "indexed": lambda: _ours(indexed_reader, options, workers),
            "indexed_bound": lambda: _decode_only(originals, square, options, workers),
            "classic": lambda: _classic(sorted(pictures.iterdir()), side, options, workers),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        with progress("turns", options.rounds * len(sides), title="loader") as bar:
            for _ in range(options.rounds):
                for name, side_of in sides.items():
                    seconds[name].append(side_of())
                    bar.update()
        decode_per_gb = _decode_seconds_per_gb(pairs)
    timings = {name: Timing(tuple(values)) for name, values in seconds.items()}
    return {
        **_figures(timings),
        "decode_cpu_seconds_per_gb": decode_per_gb,
        "num_workers": workers,
        "batch_size": options.batch_size,
        "photos": f"{options.photos or 'synthetic'}, {reader.num_samples} of them",
    }


def _figures(timings: Mapping[str, Timing]) -> Figures:
    rates = {name: 1 / timing.median for name, timing in timings.items()}
    return {
        "samples_per_second": rates["ours"],
        "decode_bound_samples_per_second": rates["bound"],
        "efficiency": rates["ours"] / rates["bound"],
        "classic_samples_per_second": rates["classic"],
        "speedup": rates["ours"] / rates["classic"],
        "cached_samples_per_second": rates["cached"],
        "cached_efficiency": _ratio(timings, "cached", "ours"),
        "indexed_samples_per_second": rates["indexed"],
        "indexed_bound_samples_per_second": rates["indexed_bound"],
        "indexed_efficiency": _ratio(timings, "indexed", "indexed_bound"),
        "spread": timings["ours"].spread,
        "decode_bound_spread": timings["bound"].spread,
        "cached_spread": timings["cached"].spread,
        "indexed_spread": timings["indexed"].spread,
        "indexed_bound_spread": timings["indexed_bound"].spread,
        "classic_spread": timings["classic"].spread,
    }


def _ratio(timings: Mapping[str, Timing], ours: str, other: str) -> float:
    """Return the median over rounds of one side's rate by that of another in the same round."""
    pairs = zip(timings[other].seconds, timings[ours].seconds, strict=True)
    return median(theirs / mine for theirs, mine in pairs)


def _reader(root: Path) -> ShardReader:
    return ShardReader(open_data([str(root)], "train", _IMAGE_SIZE), _IMAGE_SIZE)


def _warm_cache(reader: ShardReader, folder: Path) -> ShardReader:
    """Return a reader of the same shards from a cache that holds them all."""
    data_sets = with_cache(reader.data_sets, str(folder), None)
    cached = ShardReader(data_sets, _IMAGE_SIZE)
    for data, shard in cached.shards:
        data.tar(shard)
        data.index(shard)
    return cached


def prepare(options: LoaderOptions, synthetic: Path, shards: Path) -> ShardReader:
    """Make shards of the photographs, or of synthetic ones, and open them."""
    if options.photos is None:
        write_photographs(synthetic, _SYNTHETIC_PHOTOS)
    wanted = MakeShardsOptions(photos=options.photos or synthetic, out=shards, split="train")
    with quietly():
        make_shards(wanted)
    return _reader(shards)


def unpack(reader: ShardReader, pictures: Path) -> list[tuple[bytes, bytes]]:
    """Write each color picture to a file of its own; return JPEGs of some, gray and color."""
    pictures.mkdir()
    pairs: list[tuple[bytes, bytes]] = []
    for data, shard in reader.shards:
        path = data.tar(shard)
        table = index_shard(path)
        with path.open("rb") as file:
            for sample in range(table.num_samples):
                places = (table.place(member, sample) for member in ("gray", "color"))
                gray, color = (os.pread(file.fileno(), size, offset) for offset, size in places)
                (pictures / f"{table.key(sample)}.jpg").write_bytes(color)
                if len(pairs) < _MOST_DECODED:
                    pairs.append((gray, color))
    return pairs


def _ours(reader: ShardReader, options: LoaderOptions, workers: int) -> float:
    config = TrainConfig(shards=(".",), run_dir=Path(), global_batch=options.batch_size)
    micro_batches = TrainMicroBatches(reader, config, rank=0, world_size=1)
    device = torch.device("cpu")
    with BatchStream(micro_batches, range(options.num_batches), device, workers) as stream:
        return _seconds_per_sample(iter(stream), options)


class _Decoding(Dataset[int]):
    """Decodes batch after batch out of memory and keeps nothing: what no loader can beat."""

    def __init__(self, items: Sequence[Any], decode: Callable[[Any], None], size: int) -> None:
        self.items = items
        self.decode = decode
        self.size = size

    def __getitem__(self, number: int) -> int:
        for position in range(number * self.size, (number + 1) * self.size):
            self.decode(self.items[position % len(self.items)])
        return number


def _decode_pair(pair: tuple[bytes, bytes]) -> None:
    gray, color = pair
    _decode(gray, ImageReadMode.GRAY)
    _decode(color, ImageReadMode.RGB)


def _decode_seconds_per_gb(pairs: Sequence[tuple[bytes, bytes]]) -> float:
    """Return CPU seconds to decode a GB of pairs, in this process with one thread."""
    keep_freed_memory()
    started = time.process_time()
    for pair in pairs:
        _decode_pair(pair)
    return (time.process_time() - started) / sum(len(g) + len(c) for g, c in pairs) * 1e9


def _decode(data: bytes, mode: ImageReadMode) -> Tensor:
    pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode)
    return pixels


def _decode_only(
    items: Sequence[Any], decode: Callable[[Any], None], options: LoaderOptions, workers: int
) -> float:
    dataset = _Decoding(items, decode, options.batch_size)
    numbers = range(options.num_batches)
    loader = DataLoader(
        dataset,
        None,
        sampler=numbers,
        num_workers=workers,
        worker_init_fn=_with_our_malloc,
        prefetch_factor=AHEAD,
    )
    return _seconds_per_sample(loader, options)


def _with_our_malloc(worker: int) -> None:
    keep_freed_memory()


def _classic(files: list[Path], side: int, options: LoaderOptions, workers: int) -> float:
    """Run the classic loader, for a quarter of the batches: it takes several times as long."""
    folder = ImageFolder(files * (1 + options.num_batches * options.batch_size // len(files)), side)
    loader = DataLoader(folder, options.batch_size, shuffle=True, num_workers=workers)
    return _seconds_per_sample(islice(loader, max(2, options.num_batches // 4)), options)


def _seconds_per_sample(batches: Iterable[Any], options: LoaderOptions) -> float:
    """Return seconds per sample from the first batch, when processes have started, to the last."""
    stream = iter(batches)
    next(stream)
    started = time.perf_counter()
    count = sum(1 for _ in stream)
    return (time.perf_counter() - started) / (count * options.batch_size)
