"""What one rank knows alone becomes what all ranks know, at the same step, and nobody waits."""

import torch
import torch.distributed as dist
from torch import Tensor

from pix2pix.run.distributed import Distributed

RANKS_PER_STEP = 32  # docs/cluster.md, "Agreement": a ring of so many is faster than a step
MOST_STEPS = 16  # between two exchanges: a stop saves after twice as many


def steps_between(world_size: int) -> int:
    """Return how many steps lie between two exchanges of so many ranks.

    gloo reduces in a ring of 2(N − 1) hops (gloo/allreduce.cc), which take longer than a step of
    many ranks does. Started every few steps, it has the time of all of them.
    """
    return min(MOST_STEPS, -(-world_size // RANKS_PER_STEP))


class Agreement:
    """What one rank knows alone (stop, broken data) becomes what all ranks know, one period later.

    Every `every` steps it starts an asynchronous reduction on a CPU group and reads the one before,
    so no step waits for it and every rank branches at the same step: at most `2 * every` steps
    after the first of them knew.
    """

    def __init__(self, distributed: Distributed, every: int | None = None) -> None:
        """every: steps between exchanges; None: as many as suit the number of ranks."""
        self.every = every or steps_between(distributed.world_size)
        self._group = distributed.cpu_group()
        self._told: tuple[bool, ...] = ()
        self._flags: Tensor | None = None
        self._work: dist.Work | None = None

    def is_due(self, step: int) -> bool:
        """Return True if flags are exchanged after step `step`: the same on every rank."""
        return step % self.every == 0

    def exchange(self, step: int, *flags: bool) -> tuple[bool, ...]:
        """Tell the flags after step `step`; return those that any rank told an exchange before."""
        told = self._told or (False,) * len(flags)
        self._told = tuple(one or other for one, other in zip(told, flags, strict=True))
        if not self.is_due(step):
            return (False,) * len(flags)
        agreed = self._collect() or (False,) * len(flags)
        self._start(self._told)
        self._told = ()
        return agreed

    def now(self, *flags: bool) -> tuple[bool, ...]:
        """Tell flags and return, at once, those that any rank tells: a synchronization."""
        pending = self._collect()
        self._start(flags)
        agreed = self._collect()
        if pending:  # what was told is read at the next exchange, as ever
            self._flags = torch.tensor(pending, dtype=torch.int32)
        return agreed

    def _start(self, flags: tuple[bool, ...]) -> None:
        self._flags = torch.tensor(flags, dtype=torch.int32)
        if self._group is not None:
            self._work = dist.all_reduce(
                self._flags, dist.ReduceOp.MAX, group=self._group, async_op=True
            )

    def _collect(self) -> tuple[bool, ...]:
        if self._work is not None:
            self._work.wait()
        flags, self._flags, self._work = self._flags, None, None
        return () if flags is None else tuple(bool(flag) for flag in flags.tolist())
