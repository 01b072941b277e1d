"""The device of this process, and the error where a GPU was asked for and torch sees none."""

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from pix2pix.errors import UserError
from pix2pix.run import launcher

DRIVER_FILE = Path("/proc/driver/nvidia/version")


def check_gpus(environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError where GPUs were asked for, but torch sees none."""
    asked = launcher.gpus_asked_for(environment)
    if asked is None:
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    reasons = [str(warning.message).split("(Triggered")[0].strip() for warning in said]
    built_for = torch.version.cuda
    driver = driver_version()
    if built_for is None:
        cure = "this torch is built without CUDA; install one that has it: https://pytorch.org"
    elif driver is None:
        cure = (
            "no NVIDIA driver is loaded here; install one, or start the container with its GPUs "
            "(--gpus all, --nv)"
        )
    else:
        cure = (
            f"install a driver that knows CUDA {built_for}, or a torch built for the CUDA of this "
            "driver: https://pytorch.org"
        )
    raise UserError(
        f"GPUs were asked for ({asked}), but torch {torch.__version__} sees none: NVIDIA driver "
        f"{driver or 'none'}, torch is built for CUDA {built_for or 'none'}"
        f"{'; torch says: ' + reasons[0] if reasons else ''}. {cure[0].upper()}{cure[1:]}. To "
        f"train on the CPU, set {launcher.USE_CPU}=true"
    )


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver that is loaded, or None."""
    try:
        found = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", DRIVER_FILE.read_text())
    except OSError:
        return None
    return found[1] if found else "of unknown version"


def device_ids(device: torch.device) -> list[int] | None:
    """Return what DistributedDataParallel is given: a GPU's index among those visible.

    It is not the local rank: under `--gpus-per-task` each process sees one GPU, of index 0.
    """
    return [device.index or 0] if device.type == "cuda" else None


def set_training_flags() -> None:
    """Let cuDNN choose its algorithms by timing, and compute fp32 as fp32, without TF32.

    A training's shapes are fixed, so each is timed once. torch allows TF32 in convolutions, with 10
    bits of mantissa (torch 2.14, `backends/cudnn/__init__.py`: allow_tf32), which would be called
    fp32 here; matrix products are not allowed it. Deterministic algorithms are not chosen by time.
    """
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def exact_fp32() -> Iterator[None]:
    """Inside, convolutions are fp32 without TF32, by algorithms that do not depend on timing.

    For figures and colors, which should be those of any other device to rounding.
    """
    cudnn = torch.backends.cudnn
    # The other way to ask, conv.fp32_precision, never raises; allow_tf32 does where both were used.
    conv = cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    benchmark, tf32 = cudnn.benchmark, conv == "tf32"
    cudnn.benchmark = False
    if tf32:
        cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.benchmark = benchmark
        if tf32:
            cudnn.allow_tf32 = True
