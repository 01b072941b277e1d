"""What saving and resuming cost: how long a save stalls, bytes per rank, seconds to the first step.

Every round measures each thing once, so that a slow moment of the machine strikes all alike.
"""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep.make_shards import MakeShardsOptions, make_shards
from pix2pix.benchmark.options import CheckpointOptions
from pix2pix.benchmark.processes import environments
from pix2pix.benchmark.report import Figures, spread
from pix2pix.cli.options import arguments_of
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.checkpoint_files import checkpoints, read_facts

_INSTALLED = Path(__file__).parents[1] / "scripts"  # the package pix2pix.scripts of a wheel
TRAIN = (_INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "scripts") / "train.py"


def measure(options: CheckpointOptions) -> tuple[Figures, str | None]:
    """Return the figures, and the GPU that they were measured on.

    Raises UserError where the scratch folder can't be written.
    """
    with _scratch(options.run_dir) as folder:
        saves, device = measured_saves(options, folder)
        starts = _measured_starts(options, folder)
    even_share = saves["total_bytes"] / options.num_processes
    ratios = {
        "stall_to_copy": saves["async_stall_seconds"] / saves["copy_seconds"],
        "stall_to_sync": saves["async_stall_seconds"] / saves["sync_seconds"],
        "bytes_per_rank_to_even_share": saves["bytes_per_rank"] / even_share,
        "resume_to_fresh_start": starts["resume_seconds"] / starts["fresh_start_seconds"],
    }
    return {"num_processes": options.num_processes, **saves, **starts, **ratios}, device


@contextlib.contextmanager
def _scratch(root: Path | None) -> Iterator[Path]:
    try:
        if root is not None:
            root.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="checkpoint-", dir=root)
    except OSError as error:
        raise UserError(f"can't write to {root}: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def measured_saves(options: CheckpointOptions, folder: Path) -> tuple[dict[str, Any], str | None]:
    """Measure saves by ranks of a process group, which this process is not one of.

    Returns the figures, and the GPU that they were measured on.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    ranks = []
    for environment in environments(options.num_processes):
        arguments = (environment, options, folder, theirs)
        ranks.append(context.Process(target=_measure_saves, args=arguments))
        ranks[-1].start()
    theirs.close()
    try:
        return mine.recv()  # EOFError where rank 0 has died: it has said why
    finally:
        for rank in ranks:
            rank.join()
        shutil.rmtree(folder / "saves", ignore_errors=True)


def _measure_saves(
    environment: dict[str, str], options: CheckpointOptions, folder: Path, answer: Any
) -> None:
    """Measure on one rank; the first answers. The slowest rank's time counts."""
    os.environ.update(environment)
    import torch.distributed.checkpoint as dcp  # in the ranks only: the parent needs no torch
    from torch import Tensor

    from pix2pix.run.checkpoint import Checkpointer
    from pix2pix.run.checkpoint_share import leaves
    from pix2pix.run.distributed import Distributed
    from pix2pix.run.state import build_state

    distributed = Distributed(timeout_minutes=5)
    state = build_state(_config(options, folder), distributed.device)
    checkpointer = Checkpointer(folder / "saves", 1, distributed, config_hash="")
    group = distributed.cpu_group()
    plain, copies = folder / "plain", list[Any]()

    def seconds(work: Callable[[], object]) -> float:
        distributed.barrier()
        begun = time.perf_counter()
        work()
        return max(distributed.all_gather_object(time.perf_counter() - begun))

    def plain_copy() -> None:
        for _, leaf in leaves(state.state_dict()):
            copies.append(leaf.to("cpu", copy=True) if isinstance(leaf, Tensor) else leaf)

    def synchronous() -> None:
        writer = dcp.FileSystemWriter(plain)
        dcp.save(state.state_dict(), storage_writer=writer, process_group=group, no_dist=not group)

    def rounds() -> Iterator[tuple[float, float, float, float]]:
        numbers = range(options.repeats + 1)
        for number in tqdm(numbers, "saves", ncols=80, disable=not distributed.is_main):
            state.step = number
            copy = seconds(plain_copy)
            copies.clear()
            stall = seconds(lambda: checkpointer.save(state, 0))
            durable = stall + seconds(checkpointer.wait)
            yield copy, seconds(synchronous), stall, durable
            distributed.run_on_main(lambda: shutil.rmtree(plain))

    figures = _save_figures(list(rounds()), _share_sizes(folder / "saves"))
    if distributed.is_main:
        on_gpu = distributed.device.type == "cuda"
        answer.send((figures, distributed.device_name if on_gpu else None))
    distributed.shutdown()


def _save_figures(
    rounds: Sequence[tuple[float, float, float, float]], sizes: Sequence[int]
) -> dict[str, Any]:
    """Return figures of rounds of (copy, synchronous, stall, durable) seconds, the first aside."""
    first, *later = rounds
    columns = list(zip(*later, strict=True))
    copy, sync, stall, durable = map(median, columns)
    names = ("copy_spread", "sync_spread", "async_stall_spread", "async_durable_spread")
    return {
        "total_bytes": sum(sizes),
        "bytes_per_rank": max(sizes),
        "copy_seconds": copy,
        "sync_seconds": sync,
        "async_stall_seconds": stall,
        "first_stall_seconds": first[2],
        "async_durable_seconds": durable,
        **dict(zip(names, map(spread, columns), strict=True)),
    }


def _share_sizes(root: Path) -> list[int]:
    """Return the bytes of each rank's share in the one checkpoint under `root`."""
    (saved,) = checkpoints(root)
    return [e["bytes"] for n, e in read_facts(saved)["files"].items() if n.endswith(".distcp")]


def _measured_starts(options: CheckpointOptions, folder: Path) -> dict[str, float]:
    """Measure seconds from the start of `train.py` to the end of its first step."""
    _write_shards(folder, max(32, options.num_processes))
    fresh, resumed = [], []
    for _ in tqdm(range(options.repeats), "starts", ncols=80):
        fresh.append(_seconds_to_step(1, options, folder))
        resumed.append(_seconds_to_step(2, options, folder))
        shutil.rmtree(folder / "run")
    return {
        "fresh_start_seconds": median(fresh),
        "resume_seconds": median(resumed),
        "fresh_start_spread": spread(fresh),
        "resume_spread": spread(resumed),
    }


def _seconds_to_step(step: int, options: CheckpointOptions, folder: Path) -> float:
    """Train to `step`, the first one of this start; the log says when it was done."""
    config = replace(_config(options, folder), total_steps=step)
    command = [sys.executable, str(TRAIN), *arguments_of(config)]
    begun = time.time()
    ranks = [
        subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for environment in environments(options.num_processes)
    ]
    for rank in ranks:
        _, errors = rank.communicate()
        if rank.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{errors.decode()}")
    records = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return next(float(record["time"]) for record in records if record["step"] == step) - begun


def _config(options: CheckpointOptions, folder: Path) -> TrainConfig:
    return TrainConfig(
        shards=(str(folder / "shards"),),
        run_dir=folder / "run",
        global_batch=options.num_processes,
        image_size=options.image_size,
        generator_width=options.generator_width,
        discriminator_width=options.discriminator_width,
        log_every=1,
        sample_every=0,
        evaluate_every=0,
        checkpoint_every=0,
        num_workers=0,
    )


def _write_shards(folder: Path, num_photos: int) -> None:
    """Draw a few colored clouds: what is on the photographs costs nothing here."""
    photos = folder / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(num_photos):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((600, 600)).save(photos / f"{number}.jpg")
    with contextlib.redirect_stdout(io.StringIO()):
        make_shards(
            MakeShardsOptions(photos=photos, out=folder / "shards", split="train", short_side=572)
        )
