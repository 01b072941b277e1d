"""Out of memory: an error that says which flags make a step smaller."""

import contextlib
from collections.abc import Iterator

import torch

from pix2pix.config import TrainConfig
from pix2pix.errors import UserError

CPU_ALLOCATOR = "DefaultCPUAllocator: can't allocate memory"  # torch's words, a RuntimeError


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if torch raised `error` because a device's memory is full."""
    of_a_device = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return of_a_device or (isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error))


@contextlib.contextmanager
def enough_memory(
    config: TrainConfig, batch: int, precision: str, device: torch.device
) -> Iterator[None]:
    """Turn memory that runs out inside into a UserError that says which flags to change.

    batch: photographs of one micro-batch on this rank.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        cures = []
        if batch > 1:
            parts = next(n for n in range(2, batch + 1) if batch % n == 0)
            more = config.grad_accumulation_steps * parts
            cures.append(f"--grad_accumulation_steps {more}, which makes the same steps")
            cures.append(f"a --global_batch below {config.global_batch}, in a new --run_dir")
        if precision == "no" and device.type == "cuda":
            cures.append("--precision bf16 or fp16")
        cures.append("a smaller --image_size or --generator_width, in a new --run_dir")
        of_whom = "GPU" if device.type == "cuda" else "machine"
        raise UserError(
            f"the memory of the {of_whom} is full: a process takes {batch} photographs of "
            f"{config.image_size} px at a time. Try {'; or '.join(cures)}"
        ) from error
