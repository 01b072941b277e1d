"""How fast a training step is: beside the classic step and the device's matrix multiplication."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import conv2d, linear
from torch.utils.flop_counter import FlopCounterMode

from pix2pix.benchmark.classic import ClassicStep
from pix2pix.benchmark.encoder import compare
from pix2pix.benchmark.memory import gpu_figures, saved_bytes_per_photograph
from pix2pix.benchmark.options import StepOptions
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.rounds import take_turns
from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch
from pix2pix.model.generators import NO_ENCODER
from pix2pix.run.devices import set_training_flags
from pix2pix.run.distributed import Distributed
from pix2pix.run.state import TrainState, build_state
from pix2pix.system.machine import keep_all_freed_memory
from pix2pix.training.precision import default_precision
from pix2pix.training.step import PRECISIONS, AdversarialStep

MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}  # large enough to reach the device's best rate


def measure(options: StepOptions, distributed: Distributed) -> Figures:
    """Measure photographs per second of `AdversarialStep`: uint8 batch to updated weights.

    The classic step runs at each of `classic_batches`; its best rate counts.
    """
    device = distributed.device
    precision = options.precision or default_precision(device)
    if device.type == "cpu":
        keep_all_freed_memory()  # as a training does; the classic step gains by it, too
    memory = _memory(options, precision, device)
    step = our_step(options, precision, device)
    flops = flops_of(our_step(replace(options, compile=False), precision, device))
    classic = {
        f"classic {size}": ClassicStep(options.image_size, size, options.width, device)
        for size in options.classic_batches or (options.batch_size,)
    }
    products, matmul_flops = matmuls(device, PRECISIONS[precision] or torch.float32)
    sides: dict[str, Callable[[], object]] = {"ours": step, **products, **classic}
    timings = take_turns(sides, device, options.rounds, options.seconds_per_turn)

    ours = timings["ours"]
    rates = {name: int(name.split()[1]) / timings[name].median for name in classic}
    best = max(rates, key=lambda name: rates[name])
    flops_per_second = flops / ours.median
    matmul = min(products, key=lambda name: timings[name].median)
    matmul_rate = matmul_flops / timings[matmul].median
    return {
        "samples_per_second": options.batch_size / ours.median,
        "classic_samples_per_second": rates[best],
        "speedup": options.batch_size / ours.median / rates[best],
        "flops_per_second": flops_per_second,
        "matmul_flops_per_second": matmul_rate,
        "matmul_by": matmul,
        "utilization": flops_per_second / matmul_rate,
        "spread": ours.spread,
        "classic_spread": timings[best].spread,
        "batch_size": options.batch_size,
        "classic_batch_size": int(best.split()[1]),
        "image_size": options.image_size,
        "precision": precision,
        "compiled": str(options.compile).lower(),
        "threads": torch.get_num_threads(),
        **memory,
        **_beside_unet(options, precision, device),
    }


def _beside_unet(options: StepOptions, precision: str, device: torch.device) -> Figures:
    """Return what an encoder costs beside the U-Net; nothing where the step has the U-Net."""
    if options.encoder == NO_ENCODER:
        return {}
    return compare(options, precision, device, lambda one: _built(one, precision, device))


def our_step(
    options: StepOptions, precision: str, device: torch.device, **compiling: Any
) -> Callable[[], object]:
    """Return a step on a batch of noise that lies on the device already.

    compiling: arguments of `Module.compile`, where `options.compile` asks for it.
    """
    return _built(options, precision, device, **compiling)[0]


def _built(
    options: StepOptions, precision: str, device: torch.device, **compiling: Any
) -> tuple[Callable[[], object], TrainState]:
    """Return the step of `our_step`, and the state that it updates."""
    config = TrainConfig(
        shards=(".",),
        run_dir=Path(),
        image_size=options.image_size,
        global_batch=options.batch_size,
        generator_width=options.width,
        encoder=options.encoder,
        encoder_recompute=options.encoder_recompute,
        discriminator_width=options.width,
        total_steps=10**9,
    )
    set_training_flags()
    state = build_state(config, device, fp16=precision == "fp16")
    if options.compile:
        state.generator.compile(**compiling)
        state.discriminator.compile(**compiling)
    step = AdversarialStep(config, state, state.generator, state.discriminator, precision)
    shape = (options.batch_size, options.image_size, options.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 3, 1, 2)
    flip = torch.arange(options.batch_size) % 2 == 0
    batch = Batch(pixels[:, :1], pixels, flip, ("",) * options.batch_size).to(device)
    return (lambda: step([batch])), state


def flops_of(step: Callable[[], object]) -> int:
    """Count the floating-point operations of a step; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def matmuls(
    device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Callable[[], object]], int]:
    """Return a large square matrix product by each library that has one, and its operations.

    MKL, which is behind linear layers, multiplies fp32 on an AMD processor at 40 % of the rate of
    oneDNN, which is behind convolutions: against MKL alone, a step would reach more than there is.
    """
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    pixels = a.view(1, 32, -1, side).permute(0, 3, 1, 2)  # channels-last: a row of `a` each
    kernels = b.view(side, 1, 1, side).permute(0, 3, 1, 2)
    products: dict[str, Callable[[], object]] = {
        "linear layer": lambda: linear(a, b),
        "1×1 convolution": lambda: conv2d(pixels, kernels),
    }
    return products, 2 * side**3


def _memory(options: StepOptions, precision: str, device: torch.device) -> Figures:
    """Return what a step needs; alone on the device, before anything else is built there."""

    def build(batch_size: int) -> Callable[[], object]:
        return our_step(replace(options, batch_size=batch_size, compile=False), precision, device)

    figures: Figures = {"saved_bytes_per_photograph": saved_bytes_per_photograph(build)}
    on_gpu = device.type == "cuda"
    return {**figures, **gpu_figures(build, options.batch_size, device)} if on_gpu else figures
