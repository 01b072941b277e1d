"""How fast the loader is: beside the decoder alone, and beside a folder of pictures read as usual.

All three work in `num_workers` processes of torch's DataLoader, on the same photographs of short
side 286, cut to squares of 256.
"""

import os
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg

from data_prep.make_shards import MakeShardsOptions, make_shards
from pix2pix.benchmark.classic_loader import ImageFolder
from pix2pix.benchmark.options import LoaderOptions
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.rounds import Timing
from pix2pix.config import TrainConfig
from pix2pix.data.batches import TrainMicroBatches, train_side
from pix2pix.data.data_set import open_data
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
        pairs = unpack(reader, pictures)
        side = train_side(reader)
        sides = {
            "ours": lambda: _ours(reader, options, workers),
            "bound": lambda: _decode_only(pairs, options, workers),
            "classic": lambda: _classic(sorted(pictures.iterdir()), side, options, workers),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side_of in sides.items():
                seconds[name].append(side_of())
    timings = {name: Timing(tuple(values)) for name, values in seconds.items()}
    rates = {name: 1 / timing.median for name, timing in timings.items()}
    return {
        "samples_per_second": rates["ours"],
        "decode_bound_samples_per_second": rates["bound"],
        "efficiency": rates["ours"] / rates["bound"],
        "classic_samples_per_second": rates["classic"],
        "speedup": rates["ours"] / rates["classic"],
        "spread": timings["ours"].spread,
        "decode_bound_spread": timings["bound"].spread,
        "classic_spread": timings["classic"].spread,
        "num_workers": workers,
        "batch_size": options.batch_size,
        "photos": f"{options.photos or 'synthetic'}, {reader.num_samples} of them",
    }


def prepare(options: LoaderOptions, synthetic: Path, shards: Path) -> ShardReader:
    """Make shards of the photographs, or of synthetic ones, and open them."""
    if options.photos is None:
        write_photographs(synthetic, _SYNTHETIC_PHOTOS)
    make_shards(MakeShardsOptions(photos=options.photos or synthetic, out=shards, split="train"))
    return ShardReader(open_data([str(shards)], "train", _IMAGE_SIZE), _IMAGE_SIZE)


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

    def __init__(self, pairs: list[tuple[bytes, bytes]], batch_size: int) -> None:
        self.pairs = pairs
        self.batch_size = batch_size

    def __getitem__(self, number: int) -> int:
        for position in range(number * self.batch_size, (number + 1) * self.batch_size):
            gray, color = self.pairs[position % len(self.pairs)]
            _decode(gray, ImageReadMode.GRAY)
            _decode(color, ImageReadMode.RGB)
        return number


def _decode(data: bytes, mode: ImageReadMode) -> Tensor:
    pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode)
    return pixels


def _decode_only(pairs: list[tuple[bytes, bytes]], options: LoaderOptions, workers: int) -> float:
    dataset = _Decoding(pairs, options.batch_size)
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
