"""What a pretrained encoder costs beside the U-Net of the same width: time and memory.

Also with its activations computed again in backward: `--encoder_recompute`.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from pix2pix.benchmark.memory import saved_bytes_per_photograph
from pix2pix.benchmark.options import StepOptions
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.rounds import take_turns
from pix2pix.model.generators import NO_ENCODER
from pix2pix.run.state import TrainState
from pix2pix.training.step import PRECISIONS

StepBuilder = Callable[[StepOptions], tuple[Callable[[], object], TrainState]]
BUDGETS_GIB = (8, 16)


def compare(
    options: StepOptions, precision: str, device: torch.device, build: StepBuilder
) -> Figures:
    """Return the generator's forward and backward, and the whole step, of the three generators.

    By turns, in seconds per photograph. Memory: what autograd keeps per photograph in a step, and
    the batch of which that, with weights, gradients, moments and average, fills 8 and 16 GiB. What
    a device's kernels take for themselves comes on top.

    build: a step and its state from options.
    """
    plain = replace(options, encoder_recompute=False)
    three = {
        "encoder": plain,
        "unet": replace(plain, encoder=NO_ENCODER),
        "recompute": replace(options, encoder_recompute=True, compile=False),
    }
    sides: dict[str, Callable[[], object]] = {}
    figures: dict[str, float | int | str] = {"encoder": options.encoder}
    for name, side in three.items():
        figures |= _memory(name, replace(side, compile=False), build)
        step, state = build(side)
        sides[f"{name}_step"] = step
        sides[f"{name}_generator"] = _pass(state.generator, options, precision, device)
        figures[f"{name}_parameters"] = sum(p.numel() for p in state.generator.parameters())
    timings = take_turns(sides, device, options.rounds, options.seconds_per_turn)
    for name, timing in timings.items():
        figures[f"{name}_seconds"] = timing.median / options.batch_size
        figures[f"{name}_spread"] = timing.spread
    for part in ("generator", "step"):
        ratio = timings[f"unet_{part}"].median / timings[f"encoder_{part}"].median
        figures[f"{part}_speedup_over_unet"] = ratio
    return figures


def _pass(
    generator: nn.Module, options: StepOptions, precision: str, device: torch.device
) -> Callable[[], object]:
    """Return forward and backward of a generator on one batch of noise."""
    shape = (options.batch_size, 1, options.image_size, options.image_size)
    gray = (torch.rand(shape, device=device) * 2 - 1).contiguous(memory_format=torch.channels_last)
    dtype = PRECISIONS[precision]

    def forward_and_backward() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            painted = generator(gray)
        painted.float().square().mean().backward()
        generator.zero_grad(set_to_none=True)

    return forward_and_backward


def _memory(name: str, options: StepOptions, build: StepBuilder) -> Figures:
    kept = saved_bytes_per_photograph(lambda size: build(replace(options, batch_size=size))[0])
    state = build(replace(options, batch_size=1))[1]
    networks = (state.generator, state.discriminator)
    gradients = sum(p.numel() * p.element_size() for n in networks for p in n.parameters())
    fixed = state.num_bytes + gradients
    batches = {f"{name}_batch_in_{gib}_gib": (gib * 2**30 - fixed) // kept for gib in BUDGETS_GIB}
    return {f"{name}_saved_bytes_per_photograph": kept, **batches}
