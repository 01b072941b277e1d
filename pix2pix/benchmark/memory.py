"""What a training step holds in memory: exactly, by autograd's count, and on a GPU as measured."""

import weakref
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pix2pix.benchmark.report import Figures

StepBuilder = Callable[[int], Callable[[], object]]  # from a batch size


def kept_bytes(step: Callable[[], object]) -> int:
    """Return the most bytes that autograd keeps for a backward pass at any moment of a step.

    Each piece of memory counts once, however many operations keep it. Weights count too: only the
    difference of two batch sizes is what photographs need. The same on every device, but for what
    its kernels keep for themselves.
    """
    tally = _Tally()
    with saved_tensors_hooks(tally.keep, lambda kept: kept.tensor):
        step()
    return tally.most


class _Kept:
    """A tensor that autograd keeps; it lives for as long as its graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Tally:
    def __init__(self) -> None:
        self.now = self.most = 0
        self._users: Counter[int] = Counter()  # of a piece of memory, by its address

    def keep(self, tensor: Tensor) -> _Kept:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        self._users[address] += 1
        if self._users[address] == 1:
            self.now += size
            self.most = max(self.most, self.now)
        kept = _Kept(tensor)
        weakref.finalize(kept, self._let_go, address, size)
        return kept

    def _let_go(self, address: int, size: int) -> None:
        self._users[address] -= 1
        if self._users[address] == 0:
            self.now -= size


def saved_bytes_per_photograph(build: StepBuilder) -> int:
    """Return what a photograph adds to what autograd keeps: batches of 2 and 1 compared."""
    return kept_bytes(build(2)) - kept_bytes(build(1))


def gpu_figures(build: StepBuilder, batch_size: int, device: torch.device) -> Figures:
    """Measure peaks of the allocator, and the largest batch that this GPU can train on.

    The largest batch is predicted from the peaks at `batch_size` and twice that, and then run; it
    shrinks by a tenth until it fits.
    """
    small, large = (_peak(build(size), device) for size in (batch_size, 2 * batch_size))
    activation = max(1, (large - small) // batch_size)
    free, _ = torch.cuda.mem_get_info(device)
    room = free + torch.cuda.memory_reserved(device) - small
    largest = batch_size + max(0, room) // activation
    while largest > batch_size and not _fits(build, largest, device):
        largest = largest * 9 // 10
    return {
        "peak_memory_bytes": small,
        "activation_bytes_per_photograph": activation,
        "largest_batch": max(largest, batch_size),
    }


def _peak(step: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes that tensors hold in a step, once the optimizers have their state."""
    step()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def _fits(build: StepBuilder, batch_size: int, device: torch.device) -> bool:
    torch.cuda.empty_cache()
    try:
        _peak(build(batch_size), device)
    except torch.OutOfMemoryError:
        return False
    return True
