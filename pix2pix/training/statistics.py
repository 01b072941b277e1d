"""The running statistics of a network, copied and restored in a few operations."""

import torch
from torch import Tensor, nn


class Statistics:
    """A copy of a network's running statistics, to go back to.

    One tensor for each type: a clone, a choice and a copy of each of some forty buffers would be a
    sixth of the kernels that a step launches.
    """

    def __init__(self, network: nn.Module) -> None:
        self._buffers = by_dtype(network)
        self._saved = {dtype: _flat(buffers) for dtype, buffers in self._buffers.items()}

    def restore(self) -> None:
        """Restore the statistics that the network had."""
        for dtype, buffers in self._buffers.items():
            _unflatten_into(buffers, self._saved[dtype])

    def restore_unless(self, keep: Tensor) -> None:
        """Do so unless `keep`, a bool on the device; nobody waits for it."""
        for dtype, buffers in self._buffers.items():
            _unflatten_into(buffers, torch.where(keep, _flat(buffers), self._saved[dtype]))


def by_dtype(network: nn.Module) -> dict[torch.dtype, list[Tensor]]:
    """Return a network's buffers by type: floats, and batch norm's counts of batches."""
    buffers: dict[torch.dtype, list[Tensor]] = {}
    for buffer in network.buffers():
        buffers.setdefault(buffer.dtype, []).append(buffer)
    return buffers


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unflatten_into(tensors: list[Tensor], flat: Tensor) -> None:
    parts = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [p.view(t.shape) for p, t in zip(parts, tensors, strict=True)])
