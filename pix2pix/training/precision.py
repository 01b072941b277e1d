"""The precision of a training, who chose it, and what an emulated one costs."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import torch

from pix2pix.run import launcher


class Precision(NamedTuple):
    """name: "no" (fp32), "bf16" or "fp16". origin: who chose it, for people."""

    name: str
    origin: str

    def __str__(self) -> str:
        return f"precision {self.shown} ({self.origin})"

    @property
    def shown(self) -> str:
        """As people call it."""
        return "fp32" if self.name == "no" else self.name


def default_precision(device: torch.device) -> str:
    """Return "bf16" where the device has it, else "fp16" on a GPU and "no" (fp32) on a CPU."""
    if has_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "no"


def has_bf16(device: torch.device) -> bool:
    """Return True if the device itself multiplies bf16: a T4, V100 or RTX 20 emulates it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # On a CPU x86 alone, where it was measured. An older torch does not tell.
    abilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def choose_precision(
    wanted: str | None, device: torch.device, environment: Mapping[str, str] = os.environ
) -> Precision:
    """Return the precision of a training whose --precision, or launcher's default, is `wanted`."""
    told = environment.get(launcher.PRECISION, "").lower()
    if wanted is not None and wanted == told and told != "no":
        return Precision(wanted, "from accelerate launch")
    unheard = f'; accelerate\'s "{told}" does not change it' if told else ""
    if wanted is not None:
        return Precision(wanted, f"--precision{unheard if told != 'no' else ''}")
    name = default_precision(device)
    kind = "GPU" if device.type == "cuda" else "CPU"
    if told == "no" and name != "no":
        unheard += ", --precision no does"
    elif told == "no":
        unheard = ""
    return Precision(name, f"this {kind}'s default{unheard}")


def price(name: str, device: torch.device) -> str | None:
    """Return what to say of a precision that is slow on the device; None: it is not."""
    if name == "no" and device.type == "cuda":
        return "fp32 on this GPU is without TF32; --precision bf16 or fp16 is many times faster"
    if name != "bf16" or has_bf16(device):
        return None
    if device.type == "cuda":
        return "bf16 is emulated on this GPU, several times slower; --precision fp16 is not"
    # 28 times was measured for the generator at 256 px.
    return "bf16 is emulated on this CPU, up to 28 times slower; --precision no is not"
