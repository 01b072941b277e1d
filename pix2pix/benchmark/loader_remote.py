"""Shards over HTTP on loopback: what a training waits for them, and what fetching costs.

A training from the folder and one from a URL take turns. The cache of the latter holds half of the
shards, so that it fetches in every epoch. Synthetic photographs, always: a window must last long
beside the start of a transfer, as it does with shards of 1,000, and that needs more of them than
a folder of a few has.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from data_prep.make_shards import MakeShardsOptions, make_shards
from pix2pix.benchmark.options import LoaderOptions
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.training import configure, quietly
from pix2pix.cli.progress import progress
from pix2pix.data.cache import ShardCache
from pix2pix.data.shards import Shard, Split, open_split
from pix2pix.run.distributed import Distributed
from pix2pix.system.urls import join
from pix2pix.training.trainer import Trainer

_NUM_PHOTOS = 512  # 64 to a shard: 16 steps, most of a second
_NUM_SHARDS = 8
_WINDOW = 1  # shards
_BATCH = 4
_EPOCHS = 2
_FETCHED_BYTES = 6 * 10**7  # what 1,000 pairs of COCO have
_IMAGE_SIZE = 64  # pixels: with width 8, a step takes 40 ms of a core


def remote_figures(options: LoaderOptions, num_photos: int = _NUM_PHOTOS) -> Figures:
    """Measure shares of time waited for data, in %, and CPU seconds per GB fetched."""
    with TemporaryDirectory(prefix="remote-") as folder:
        return _remote_figures(options.rounds, num_photos, Path(folder))


def _remote_figures(rounds: int, num_photos: int, folder: Path) -> Figures:
    shards = _make_shards(folder, num_photos)
    split = open_split(shards, "train")
    shares: dict[str, list[float]] = {"folder": [], "http": []}
    large = _large_shard(shards, split)
    with (
        _served(shards) as url,
        Distributed(num_threads=1) as distributed,
        progress("trainings", 2 * rounds, title="over HTTP") as bar,
    ):
        per_gb = [_fetch_seconds(url, large, folder / f"c{n}") for n in range(rounds)]
        for number in range(rounds):
            for name, place in (("folder", str(shards)), ("http", url)):
                run = folder / f"run-{name}-{number}"
                shares[name].append(_share_waited(place, run, split, distributed))
                bar.update()
    more = [http - local for http, local in zip(shares["http"], shares["folder"], strict=True)]
    return {
        "waited_from_folder_percent": 100 * median(shares["folder"]),
        "waited_over_http_percent": 100 * median(shares["http"]),
        "waited_more_percent": 100 * median(more),
        "fetch_cpu_seconds_per_gb": median(per_gb),
    }


def _make_shards(folder: Path, num_photos: int) -> Path:
    """Return a folder of small shards, so that a training goes through many windows."""
    photos, out = folder / "photos", folder / "remote"
    write_photographs(photos, num_photos)
    per_shard = num_photos // _NUM_SHARDS
    options = MakeShardsOptions(photos=photos, out=out, split="train", samples_per_shard=per_shard)
    with quietly():
        make_shards(options)
    return out


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a folder by Python's own server, in a process of its own; yields its URL."""
    code = (
        "import functools, http.server as h, sys\n"
        "class Quiet(h.SimpleHTTPRequestHandler):\n"
        "    log_message = lambda *_: None\n"
        "handler = functools.partial(Quiet, directory=sys.argv[1])\n"
        "server = h.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print(server.server_address[1], flush=True)\n"
        "server.serve_forever()\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            yield url
        finally:
            server.kill()


def _large_shard(shards: Path, split: Split) -> Shard:
    """Write a file of a usual shard's size beside the others; nobody reads samples of it."""
    path = shards / "large.tar"
    data = (shards / split.shards[0].name).read_bytes()
    data *= math.ceil(_FETCHED_BYTES / len(data))
    path.write_bytes(data)
    return Shard(path.name, 0, len(data), sha256(data).hexdigest())


def _fetch_seconds(url: str, shard: Shard, folder: Path) -> float:
    """Return CPU seconds of this process, and of curl, to fetch and check a GB."""
    cache = ShardCache(folder)
    started = _cpu_seconds()
    cache.get(join(url, shard.name), shard)
    return (_cpu_seconds() - started) / cache.fetched_bytes * 1e9


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _share_waited(place: str, run_dir: Path, split: Split, distributed: Distributed) -> float:
    """Share of its time that a training waits for data, from its second window on."""
    half = sum(shard.bytes for shard in split.shards) / 2
    is_remote = "://" in place
    config = configure(
        shards=(place,),
        run_dir=run_dir,
        shards_cache=run_dir.with_suffix(".cache") if is_remote else None,
        shards_cache_gib=half / 2**30 if is_remote else None,
        image_size=_IMAGE_SIZE,
        generator_width=8,
        discriminator_width=8,
        global_batch=_BATCH,
        epochs=_EPOCHS,
        window_shards=_WINDOW,
        log_every=1,
        sample_every=0,
        evaluate_every=0,
        checkpoint_every=0,
    )
    with quietly():
        Trainer(config, distributed).fit()
    first = _WINDOW * split.shards[0].num_samples / _BATCH
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    rows = [row for row in lines if "speed/share_waited_for_data" in row and row["step"] > first]
    seconds = [1 / row["speed/samples_per_second"] for row in rows]
    waited = [
        row["speed/share_waited_for_data"] * time_ for row, time_ in zip(rows, seconds, strict=True)
    ]
    return sum(waited) / sum(seconds)
