"""What feeds and surrounds the step: the loader, saves, whole trainings, the classic run."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from pix2pix.benchmark.checkpoint import measured_saves
from pix2pix.benchmark.end_to_end import measure as measure_training
from pix2pix.benchmark.loader import measure as measure_loader
from pix2pix.benchmark.loader import prepare, unpack
from pix2pix.benchmark.options import CheckpointOptions, EndToEndOptions, LoaderOptions
from pix2pix.benchmark.rounds import take_turns
from pix2pix.benchmark.training import quietly
from pix2pix.gpu.look import device_of
from pix2pix.gpu.sections import Row, Trial
from pix2pix.run.distributed import Distributed


def loader(trial: Trial) -> Iterator[Row]:
    """Yield rates of pairs: our loader, decoders on the CPU alone, and a decoder on the device.

    Both decode the gray and the color JPEG of each sample, of synthetic photographs.
    """
    options = LoaderOptions(
        batch_size=trial.trained_batch, num_batches=trial.num_batches, rounds=trial.rounds
    )
    with quietly():
        figures = measure_loader(options)
    workers = f"{figures['num_workers']} processes"
    yield {"what": f"our loader, {workers}", "pairs/s": figures["samples_per_second"]}
    bound = figures["decode_bound_samples_per_second"]
    yield {"what": f"decoders on the CPU alone, {workers}", "pairs/s": bound}
    device = device_of(trial)
    with TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        with quietly():
            reader = prepare(options, folder / "photos", folder / "shards")
        pairs = unpack(reader, folder / "pictures")
    for count in trial.decoded_batches:
        yield _decoded_row(trial, [pairs[n % len(pairs)] for n in range(count)], device)


def _decoded_row(trial: Trial, pairs: list[tuple[bytes, bytes]], device: torch.device) -> Row:
    """Measure `decode_jpeg` on the device, and how its pixels differ from the CPU's."""
    grays, colors = (
        [torch.frombuffer(bytearray(pair[member]), dtype=torch.uint8) for pair in pairs]
        for member in (0, 1)
    )

    def decode(where: torch.device) -> list[Tensor]:
        pixels: list[Tensor] = decode_jpeg(grays, ImageReadMode.GRAY, where)
        return pixels + decode_jpeg(colors, ImageReadMode.RGB, where)

    timings = take_turns(
        {"decode": lambda: decode(device)}, device, trial.rounds, trial.seconds_per_turn
    )
    both = zip(decode(device), decode(torch.device("cpu")), strict=True)
    differences = [(a.cpu().float() - b.float()).abs().mean().item() for a, b in both]
    return {
        "what": f"torchvision's decoder on {device.type}, {len(pairs)} pairs at once",
        "pairs/s": len(pairs) / timings["decode"].median,
        "mean difference of pixels, of 255": max(differences),
    }


def checkpoint(trial: Trial) -> Iterator[Row]:
    """Yield what a save takes: a plain copy of the state, the stall, a synchronous save."""
    options = CheckpointOptions(
        repeats=trial.rounds,
        image_size=trial.image_size,
        generator_width=trial.width,
        discriminator_width=trial.width,
    )
    with TemporaryDirectory(prefix="gpu-") as name:
        figures, device = measured_saves(options, Path(name))
    if (device is not None) is not (trial.device == "cuda"):
        raise RuntimeError(f"this ran on {device or 'a CPU'}, not on {trial.device}")
    yield {**figures, "stall_to_copy": figures["async_stall_seconds"] / figures["copy_seconds"]}


def end_to_end(trial: Trial) -> Iterator[Row]:
    """Yield the figures of `benchmark.py end_to_end`: short trainings, beside their bare step."""
    yield _trained(trial, None, trial.rounds)


def classic_run(trial: Trial) -> Iterator[Row]:
    """Yield the figures of one training of 100,000 photographs, from its start to its end."""
    yield _trained(trial, trial.num_samples, 1)


def _trained(trial: Trial, num_samples: int | None, rounds: int) -> Row:
    options = EndToEndOptions(
        photos=Path(trial.photos) if trial.photos else None,
        num_samples=num_samples,
        batch_size=trial.trained_batch,
        image_size=trial.image_size,
        width=trial.width,
        precision=trial.precision,  # type: ignore[arg-type]
        rounds=rounds,
        seconds_per_turn=4 * trial.seconds_per_turn,
    )
    with Distributed() as distributed:
        if distributed.device.type != trial.device:
            raise RuntimeError(f"this ran on {distributed.device}, not on {trial.device}")
        before = time.time() - psutil.Process().create_time()  # torch's import, too
        return measure_training(options, distributed, before)
