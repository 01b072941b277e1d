"""Shards over HTTP on loopback: what a training waits for them, and what fetching costs.

A training from the folder and one from a URL take turns. The cache of the latter holds half of the
shards, so that it fetches in every epoch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.photos import FolderSource
from pix2pix.benchmark.options import LoaderOptions
from pix2pix.benchmark.photographs import write_photographs
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.training import configure, quietly
from pix2pix.data.cache import ShardCache
from pix2pix.data.shards import Split, open_split
from pix2pix.run.distributed import Distributed
from pix2pix.system.urls import join
from pix2pix.training.trainer import Trainer

_MOST_PHOTOS = 96
_PER_SHARD = 4  # photographs
_WINDOW = 2  # shards
_BATCH = 4
_STEPS = 24  # two to a window
_IMAGE_SIZE = 64  # pixels: with width 8, a step takes 40 ms of a core


def remote_figures(options: LoaderOptions) -> Figures:
    """Measure shares of time waited for data, in %, and CPU seconds per GB fetched."""
    with TemporaryDirectory(prefix="remote-") as folder:
        return _remote_figures(options, Path(folder))


def _remote_figures(options: LoaderOptions, folder: Path) -> Figures:
    photos = options.photos or folder / "photos"
    if options.photos is None:
        write_photographs(photos, _MOST_PHOTOS)
    shards = _make_shards(photos, folder)
    split = open_split(shards, "train")
    shares: dict[str, list[float]] = {"folder": [], "http": []}
    with _served(shards) as url, Distributed(num_threads=1) as distributed:
        per_gb = [_fetch_seconds(url, split, folder / f"c{n}") for n in range(options.rounds)]
        for number in range(options.rounds):
            for name, place in (("folder", str(shards)), ("http", url)):
                run = folder / f"run-{name}-{number}"
                shares[name].append(_share_waited(place, run, split, distributed))
    more = [http - local for http, local in zip(shares["http"], shares["folder"], strict=True)]
    return {
        "waited_from_folder_percent": 100 * median(shares["folder"]),
        "waited_over_http_percent": 100 * median(shares["http"]),
        "waited_more_percent": 100 * median(more),
        "fetch_cpu_seconds_per_gb": median(per_gb),
    }


def _make_shards(photos: Path, folder: Path) -> Path:
    """Return a folder of small shards, so that a training goes through many windows."""
    source, few, out = FolderSource(photos), folder / "few", folder / "remote"
    few.mkdir()
    for number, photo in enumerate(source.list_photos()[:_MOST_PHOTOS]):
        place = (photos / photo.name).resolve()
        (few / f"{number:04d}{place.suffix}").symlink_to(place)
    options = MakeShardsOptions(photos=few, out=out, split="train", samples_per_shard=_PER_SHARD)
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


def _fetch_seconds(url: str, split: Split, folder: Path) -> float:
    """CPU seconds of this process, and of curl, to fetch and check a GB."""
    cache = ShardCache(folder)
    started = _cpu_seconds()
    for shard in split.shards:
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
        total_steps=_STEPS,
        window_shards=_WINDOW,
        log_every=1,
        sample_every=0,
        evaluate_every=0,
        checkpoint_every=0,
    )
    with quietly():
        Trainer(config, distributed).fit()
    first = _WINDOW * _PER_SHARD / _BATCH
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    rows = [row for row in lines if "speed/share_waited_for_data" in row and row["step"] > first]
    seconds = [1 / row["speed/samples_per_second"] for row in rows]
    waited = [
        row["speed/share_waited_for_data"] * time_ for row, time_ in zip(rows, seconds, strict=True)
    ]
    return sum(waited) / sum(seconds)
