"""What a training prints at its start, and advice where its settings make it slow or noisy."""

import time

from pix2pix.config import TrainConfig
from pix2pix.run.distributed import Distributed
from pix2pix.training.precision import choose_precision, price

FEW = 4  # photographs whose statistics batch norm takes: with fewer they say little
# A photograph of 256 px is 86.4 GFLOP, 0.3 ms of an H100 at a third of its rate; a step asks for
# some 500 kernels, about 5 µs each for the host. 8 photographs take as long (not measured).
FEW_FOR_A_GPU = 8
FIRST_STEP, LAST_STEP = 1, 4  # of this start, between which a step is timed: the first is no step
SLOW_STEP_SECONDS = 5.0
SLOW_RUN_HOURS = 24.0


def say_first(config: TrainConfig, distributed: Distributed) -> str:
    """Print what this training runs on, and return the name of its precision."""
    device = distributed.device
    precision = choose_precision(config.precision, device)
    where = f"{distributed.world_size} × {distributed.device_name}"
    distributed.advise(f"training on {where}, {precision}")
    workers = distributed.loader_workers(config.num_workers)
    distributed.say(f"each process: cores {distributed.num_cores}, loader workers {workers}")
    distributed.advise(price(precision.name, device))
    return precision.name


def advise_on_batch(config: TrainConfig, batch: int, distributed: Distributed) -> None:
    """Print advice on `batch` photographs per rank, and on the exchange of their gradients."""
    on_cpu = distributed.device.type == "cpu"
    distributed.advise(small_batch(config, batch) or small_for_a_gpu(batch, on_cpu))
    distributed.advise(nothing_to_compress(config, distributed.world_size))


def small_batch(config: TrainConfig, batch: int) -> str | None:
    """Return what to say of batch norm over `batch` photographs of one rank; None: nothing."""
    if config.norm != "batch" or batch >= FEW:
        return None
    cure = "--norm instance needs no batch"
    if config.grad_accumulation_steps > 1:
        cure += ", fewer --grad_accumulation_steps make larger ones"
    else:
        cure += ", a larger --global_batch has better ones"
    return f"batch norm takes its statistics of {_photographs(batch)} per process: {cure}"


def small_for_a_gpu(batch: int, on_cpu: bool) -> str | None:
    """Return what to say of `batch` photographs at a time on a GPU; None: nothing."""
    if on_cpu or batch >= FEW_FOR_A_GPU:
        return None
    return (
        f"{_photographs(batch)} at a time leave a fast GPU waiting for its host: fewer GPUs may "
        "take as long, and a larger --global_batch no longer"
    )


def _photographs(number: int) -> str:
    return "1 photograph" if number == 1 else f"{number} photographs"


def nothing_to_compress(config: TrainConfig, world_size: int) -> str | None:
    """Return what to say of a compression that one rank has no use for; None: nothing."""
    if config.gradient_compression == "none" or world_size > 1:
        return None
    return "one process sends no gradients: --gradient_compression does nothing here"


class SlowSteps:
    """Times the first steps of a training on a CPU, and says once what the whole run will take."""

    def __init__(self, config: TrainConfig, on_cpu: bool, steps_left: int) -> None:
        self.config = config
        self.steps_left = steps_left
        self._count = 0 if on_cpu else LAST_STEP
        self._since = 0.0

    def step_done(self) -> str | None:
        """Return the line, after the step that it is known from; else None."""
        if self._count >= LAST_STEP:
            return None
        self._count += 1
        if self._count == FIRST_STEP:
            self._since = time.perf_counter()
        if self._count < LAST_STEP:
            return None
        seconds = (time.perf_counter() - self._since) / (LAST_STEP - FIRST_STEP)
        whole = seconds * (self.steps_left - LAST_STEP)
        if seconds < SLOW_STEP_SECONDS and whole < SLOW_RUN_HOURS * 3600:
            return None
        return (
            f"a step takes {seconds:.3g} s on this CPU, the {self.steps_left} steps of this run "
            f"about {in_words(whole)}; {self._smaller()}"
        )

    def _smaller(self) -> str:
        small = {
            "image_size": 128,
            "generator_width": 32,
            "discriminator_width": 32,
            "global_batch": 4,
        }
        flags = [f"--{n} {v}" for n, v in small.items() if getattr(self.config, n) > v]
        if not flags:
            return "a GPU takes a hundredth of it"
        return f"in a new --run_dir, smaller is faster: {' '.join(flags)}"


def in_words(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    hours = seconds / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
