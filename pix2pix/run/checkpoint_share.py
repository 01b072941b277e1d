"""The share of the state that one rank writes, and its copy, so that the training can continue."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

ENTRY_BYTES = 1500  # approximate overhead of torch.save per tensor

Name = tuple[str, ...]


class Staging:
    """Copy shares of a state into CPU memory that is reused from one save to the next.

    Fresh memory would cost as much as the copy itself, because the kernel clears every page. Only
    pinned memory receives data from a GPU at full speed.
    """

    def __init__(self) -> None:
        self._memory: dict[Name, Tensor] = {}

    def copy(self, values: Mapping[str, Any], rank: int, world_size: int) -> dict[str, Any]:
        """Return a copy of the share of `rank` in the nested `values`, under the same names.

        The copy is valid until the next call.
        """
        named = dict(leaves(values))
        sizes = {name: _size(leaf) for name, leaf in named.items()}
        share: dict[str, Any] = {}
        for name in share_of(sizes, rank, world_size):
            inner = share
            for key in name[:-1]:
                inner = inner.setdefault(key, {})
            inner[name[-1]] = self._copy_of(name, named[name])
        if any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in named.values()):
            torch.cuda.current_stream().synchronize()
        return share

    def _copy_of(self, name: Name, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return copy.deepcopy(leaf)
        mine = self._memory.get(name)
        if mine is None or (mine.shape, mine.dtype) != (leaf.shape, leaf.dtype):
            mine = torch.empty_like(leaf, device="cpu", pin_memory=leaf.is_cuda)
            self._memory[name] = mine
        return mine.copy_(leaf, non_blocking=True)


def leaves(values: Mapping[str, Any], prefix: Name = ()) -> Iterator[tuple[Name, Any]]:
    """Yield every value in nested dicts that is not a dict, with the keys that lead to it."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def share_of(sizes: Mapping[Name, int], rank: int, world_size: int) -> list[Name]:
    """Return the names that `rank` writes, with about the same number of bytes on every rank.

    Assign the largest entry first, each to the rank with the fewest bytes so far (Graham 1969): the
    shares of the 256 px networks differ by 0.2 % on 8 ranks. torch's own planner is nearly as good
    (4 %), but plans after the copy: every rank would wait for, and hold, a copy of all.
    """
    loads = [0] * world_size
    mine = []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        least = loads.index(min(loads))
        loads[least] += sizes[name]
        if least == rank:
            mine.append(name)
    return mine


def _size(leaf: Any) -> int:
    return ENTRY_BYTES + (leaf.nbytes if isinstance(leaf, Tensor) else 0)
