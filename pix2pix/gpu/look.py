"""Which GPU is there, its driver, and the versions that belong beside every figure."""

import os
from collections.abc import Iterator

import torch

from pix2pix.gpu.sections import Row, Trial
from pix2pix.run.devices import driver_version
from pix2pix.run.run_directory import versions
from pix2pix.system.machine import num_cores, processor_name


def look(trial: Trial) -> Iterator[Row]:
    """Yield {"where": device and versions}, or {"missing": why there is no GPU to measure."""
    if trial.device == "cuda" and not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
        yield {
            "missing": f"no GPU is seen here (NVIDIA driver {driver_version() or 'none'}, torch "
            f"{torch.__version__} is built for CUDA {torch.version.cuda or 'none'}"
            f"{', CUDA_VISIBLE_DEVICES is empty' if hidden else ''})"
        }
        return
    if trial.device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        count = torch.cuda.device_count()
        device = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB (one of {count}), driver "
        device += f"{driver_version() or 'unknown'}, CUDA {torch.version.cuda}, cuDNN "
        device += f"{torch.backends.cudnn.version()}"
    else:
        device = "no GPU"
    processor = f"{processor_name()}, {num_cores()} cores"
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    yield {"where": f"{device}; {processor}; {packages}"}


def device_of(trial: Trial) -> torch.device:
    """Return the device to measure. Raises RuntimeError where torch does not see it."""
    if trial.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("the GPU that was there at the beginning is gone")
    return torch.device(trial.device)
