"""The samples of step s on rank r: a pure function of (sample counts, seed, window size).

Training is one endless stream, the concatenation of every epoch's permutation. A step takes
`global_batch` consecutive positions of it; rank and micro-batch only divide that range. So the
step number is the whole state of the data: resuming is arithmetic, on any number of ranks.

An epoch permutes the shards, groups them in windows, and permutes the samples within a window:
reads stay local, a lookup costs microseconds, and memory holds one window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from pix2pix.errors import UserError

Indices = NDArray[np.int64]


def permutation(n: int, *key: object) -> Indices:
    """Return the permutation of 0..n-1 chosen by `key`: [n] int64.

    We define the hash order ourselves, so no new version of a library can change it. splitmix64 is
    a bijection on 64-bit integers, so the sort has no ties.
    """
    offset = np.frombuffer(_hash(8, *key), dtype="<u8")
    with np.errstate(over="ignore"):
        return np.argsort(_splitmix64(np.arange(n, dtype=np.uint64) + offset)).astype(np.int64)


def uniforms(count: int, *key: object) -> NDArray[np.float64]:
    """Return `count` (at most 8) numbers in [0, 1) of 53 bits each, chosen by `key`: [count]."""
    words = np.frombuffer(_hash(8 * count, *key), dtype="<u8")
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seed_of(*key: object) -> int:
    """Return a 63-bit seed for a random number generator, chosen by `key`."""
    return int.from_bytes(_hash(8, *key), "little") >> 1


def micro_batch_positions(
    step: int,
    rank: int,
    world_size: int,
    micro_batch: int,
    num_micro_batches: int,
    global_batch: int,
) -> range:
    """Return the stream positions of one micro-batch of `step`.

    Its size is global_batch / (world_size * num_micro_batches). TrainConfig.batch_per_rank checks
    that this division has no remainder.
    """
    batch = global_batch // (world_size * num_micro_batches)
    start = step * global_batch + (rank * num_micro_batches + micro_batch) * batch
    return range(start, start + batch)


@dataclass(frozen=True)
class Samples:
    """Epoch, shard and index of some positions of the stream; each array is [num_positions]."""

    epoch: Indices
    shard: Indices  # index into the split's shards, in manifest order
    index: Indices  # index of the sample within its shard


class SampleOrder:
    """The endless stream of training samples of one split.

    Args:
        sample_counts: number of samples of each shard, in manifest order.
        seed: determines every permutation.
        window_shards: number of shards that are mixed at a time; memory holds the pairs of one
            such window.

    Raises:
        UserError: the split has no samples.
    """

    def __init__(self, sample_counts: Sequence[int], seed: int, window_shards: int = 16) -> None:
        self.counts = np.asarray(sample_counts, dtype=np.int64)
        self.num_samples = int(self.counts.sum())
        if self.num_samples == 0:
            raise UserError("the train split has no samples; make shards from more photographs")
        self.seed = seed
        self.window_shards = window_shards
        # Consecutive positions are in one window, or in two at an edge.
        self._epoch_layout = lru_cache(maxsize=2)(self._layout_epoch)
        self._window = lru_cache(maxsize=2)(self._permute_window)

    def __reduce__(self) -> tuple[type["SampleOrder"], tuple[Sequence[int], int, int]]:
        # Loader workers build their own from the arguments: the caches cannot be pickled.
        return SampleOrder, (self.counts.tolist(), self.seed, self.window_shards)

    def samples(self, positions: range) -> Samples:
        """Return the samples at consecutive `positions` of the stream."""
        parts = []
        position = positions.start
        while position < positions.stop:
            epoch, offset = divmod(position, self.num_samples)
            _, starts = self._epoch_layout(epoch)
            window = int(np.searchsorted(starts, offset, side="right")) - 1
            first = offset - int(starts[window])
            members, member_starts, order = self._window(epoch, window)
            chosen = order[first : first + positions.stop - position]
            member = np.searchsorted(member_starts, chosen, side="right") - 1
            index = chosen - member_starts[member]
            parts.append(np.stack([np.full(len(chosen), epoch), members[member], index]))
            position += len(chosen)
        rows = np.concatenate(parts, axis=1) if parts else np.empty((3, 0), dtype=np.int64)
        return Samples(epoch=rows[0], shard=rows[1], index=rows[2])

    def windows(self, position: int) -> Iterator[tuple[int, Indices]]:
        """Yield (start, shards) of each window, from the one with `position` on; without an end."""
        epoch, offset = divmod(position, self.num_samples)
        while True:
            shards, starts = self._epoch_layout(epoch)
            first = int(np.searchsorted(starts, offset, side="right")) - 1
            for window in range(first, len(starts)):
                members = shards[window * self.window_shards : (window + 1) * self.window_shards]
                yield epoch * self.num_samples + int(starts[window]), members
            epoch, offset = epoch + 1, 0

    def shards_at(self, positions: range) -> list[int]:
        """Return the shards of all windows that `positions` of the stream reach into."""
        windows = takewhile(lambda one: one[0] < positions.stop, self.windows(positions.start))
        return list(dict.fromkeys(shard for _, shards in windows for shard in shards.tolist()))

    def _layout_epoch(self, epoch: int) -> tuple[Indices, Indices]:
        """Return the shards in this epoch's order, and the offset at which each window starts."""
        shards = permutation(len(self.counts), self.seed, epoch)
        ends = np.cumsum(self.counts[shards])
        starts = np.concatenate([[0], ends[self.window_shards - 1 : -1 : self.window_shards]])
        return shards, starts

    def _permute_window(self, epoch: int, window: int) -> tuple[Indices, Indices, Indices]:
        """Return the shards of one window, where each begins in it, and the order of its samples.

        Shard and index are looked up for those positions alone that are asked for: with 256 ranks
        a loader worker needs 16 samples of every second window, and of no other.
        """
        shards, _ = self._epoch_layout(epoch)
        members = shards[window * self.window_shards : (window + 1) * self.window_shards]
        ends = np.cumsum(self.counts[members])
        order = permutation(int(ends[-1]), self.seed, epoch, window)
        return members, ends - self.counts[members], order


def samples_at(sample_counts: Sequence[int], positions: Indices) -> Samples:
    """Return the samples at these positions of a split in manifest order, as in evaluation."""
    ends = np.cumsum(np.asarray(sample_counts, dtype=np.int64))
    shard = np.searchsorted(ends, positions, side="right")
    starts = ends - np.asarray(sample_counts, dtype=np.int64)
    return Samples(np.zeros_like(positions), shard, positions - starts[shard])


def _hash(num_bytes: int, *key: object) -> bytes:
    return blake2b(repr(key).encode(), digest_size=num_bytes).digest()


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the output function of SplitMix64 (Steele, Lea, Flood 2014), a bijection on uint64."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
