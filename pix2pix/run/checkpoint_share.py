"""What of the state one rank writes: its part of the bytes, copied, so that training may go on."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

ENTRY_BYTES = 1500  # what torch.save adds to a tensor, about

Name = tuple[str, ...]


class Staging:
    """Copies shares of a state into memory of the CPU that is kept from one save to the next.

    Fresh memory would cost as much again as the copy, because the kernel clears every page; and
    only pinned memory takes from a GPU at full speed.
    """

    def __init__(self) -> None:
        self._memory: dict[Name, Tensor] = {}

    def copy(self, values: Mapping[str, Any], rank: int, world_size: int) -> dict[str, Any]:
        """A copy of what `rank` writes of nested `values`, under the same names.

        It stays as it is until the next call.
        """
        named = dict(leaves(values))
        sizes = {name: _size(leaf) for name, leaf in named.items()}
        share: dict[str, Any] = {}
        for name in share_of(sizes, rank, world_size):
            inner = share
            for part in name[:-1]:
                inner = inner.setdefault(part, {})
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
    """Everything in nested dicts that is no dict, under the names that lead to it."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def share_of(sizes: Mapping[Name, int], rank: int, world_size: int) -> list[Name]:
    """The names that `rank` writes, so that every rank has about the same number of bytes.

    The largest first, each to the rank that has least so far (Graham 1969): the 256 px networks
    come out within 0.2 % on 8 ranks. torch's own planner would do nearly as well (4 %), but plans
    after the copy: every rank would wait for a copy of the whole state, and hold it.
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
