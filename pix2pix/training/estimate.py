"""A few steps on one rank, for how long a training takes: `--dry_run --estimate`."""

import os
import time
from typing import NamedTuple

import torch

from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch
from pix2pix.run.devices import set_training_flags
from pix2pix.run.launcher import compile_options
from pix2pix.run.state import TrainState, build_state
from pix2pix.system.cores import cores_of_process, share_of_cores
from pix2pix.system.machine import keep_all_freed_memory
from pix2pix.training.advice import in_words
from pix2pix.training.log import peak_memory_gib
from pix2pix.training.memory import enough_memory
from pix2pix.training.precision import choose_precision
from pix2pix.training.step import AdversarialStep

FIRST_STEPS, STEPS = 2, 3  # the first allocate, choose algorithms and compile; these are timed


class Estimate(NamedTuple):
    """checkpoint, gradients: bytes, as the networks have them. time: a line for people."""

    checkpoint: int
    gradients: int
    time: str


def estimate(config: TrainConfig, steps_left: int, batch: int, ranks_here: int) -> Estimate:
    """Make a few steps of one rank with random pixels, and write nothing.

    Args:
        config: with `total_steps` resolved.
        steps_left: of the training.
        batch: photographs of a micro-batch on one rank.
        ranks_here: how many ranks share the cores of this machine.

    Raises:
        UserError: the memory does not suffice.
    """
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        keep_all_freed_memory()
        mine = cores_of_process()
        torch.set_num_threads(share_of_cores(mine, [mine] * ranks_here))
    precision = choose_precision(config.precision, device)
    with enough_memory(config, batch, precision.name, device):
        state = build_state(config, device, fp16=precision.name == "fp16")
        seconds = _seconds_per_step(config, state, precision.name, batch, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    whole, kind = in_words(steps_left * seconds), precision.shown
    line = (
        f"{whole} for {steps_left:,} steps of {seconds:.3g} s, as {STEPS} of one rank took on the "
        f"{name} of this machine in {kind}, without loading, reductions and evaluations; the "
        f"process had {peak_memory_gib(device):.1f} GiB at its peak"
    )
    networks = (state.generator, state.discriminator)
    gradients = sum(p.numel() * p.element_size() for n in networks for p in n.parameters())
    return Estimate(state.num_bytes, gradients, line)


def _seconds_per_step(
    config: TrainConfig, state: TrainState, precision: str, batch: int, device: torch.device
) -> float:
    set_training_flags()
    if config.compile:
        for network in (state.generator, state.discriminator):
            network.compile(**compile_options(os.environ))
    step = AdversarialStep(config, state, state.generator, state.discriminator, precision)
    state.step = 0
    micro_batches = [_random_batch(batch, config.image_size, device)]
    micro_batches *= config.grad_accumulation_steps
    for number in range(FIRST_STEPS + STEPS):
        if number == FIRST_STEPS:
            _wait_for(device)
            begun = time.perf_counter()
        step(micro_batches)
    _wait_for(device)
    return (time.perf_counter() - begun) / STEPS


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _random_batch(size: int, side: int, device: torch.device) -> Batch:
    pixels = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    flip = torch.arange(size) % 2 == 0
    return Batch(pixels[:, :1], pixels, flip, ("",) * size).to(device)
