"""Tests on each device: the same bodies run on a CPU in `make test`, and on a GPU in `make gpu`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

ON_CPU = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
ON_GPU = {"ACCELERATE_USE_CPU": "false"}
# Operations that wait for a value, and the one by which torch.tensor() makes a constant: on a GPU
# that is a copy from memory that is not pinned, which waits, too.
WAITS = {
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique"),
    "lift_fresh",
}


def environment_of(device: str) -> dict[str, str]:
    """Variables of a process that is to run on the device."""
    return ON_GPU if device == "cuda" else ON_CPU


@contextmanager
def no_reading_back(device: str) -> Iterator[None]:
    """Fail where the host would wait for a value of the device.

    torch itself tells on a GPU. On a CPU, operations that would do so on a GPU are told by name.
    """
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        with _NoReads():
            yield


class _NoReads(TorchDispatchMode):
    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        assert name not in WAITS, f"{function} waits for the device"
        return function(*arguments, **(options or {}))
