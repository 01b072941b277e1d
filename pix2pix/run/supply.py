"""Shards that lie elsewhere: opened alike on every rank, and waited for by all together.

A rank that waits for data inside a collective's time-out would be taken for lost. So what the next
steps need is looked for before them, and where any node lacks it, all ranks wait here.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from pix2pix.cli.help import wrap
from pix2pix.config import TrainConfig
from pix2pix.data.batches import training_order, weighted_shards
from pix2pix.data.data_set import DataSet, Need, open_training, with_cache
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.run.agreement import Agreement
from pix2pix.run.distributed import Distributed

if TYPE_CHECKING:
    from pix2pix.data.cache import ShardCache
    from pix2pix.data.prefetch import Prefetcher

POLL_SECONDS = (0.01, 0.2)  # between looks: at first, doubled up to the longest
SAY_SECONDS = 30  # between lines about a wait


def open_readers(
    config: TrainConfig, distributed: Distributed
) -> tuple[ShardReader, ShardReader | None]:
    """Readers of the train splits and, where there are any, of the val splits.

    Every rank calls it. Raises UserError, on all of them, where data or a node's cache can't be
    used.
    """
    train, validation = distributed.run_on_main(partial(open_training, config))
    place = (config.shards_cache, config.shards_cache_gib)
    train, validation = (
        cached(data_sets, *place, distributed) for data_sets in (train, validation)
    )
    size = config.image_size
    return ShardReader(train, size), ShardReader(validation, size) if validation else None


def cached(
    data_sets: list[DataSet], folder: str | None, most_gib: float | None, distributed: Distributed
) -> list[DataSet]:
    """`with_cache` on every rank; raises UserError on all of them."""
    error = None
    try:
        data_sets = with_cache(data_sets, folder, most_gib)
    except UserError as mine:
        error = str(mine)
    distributed.raise_on_all_ranks(error)
    return data_sets


def fetch_split(reader: ShardReader, distributed: Distributed) -> None:
    """Fetch all shards that `reader` reads, as many as fit its node's cache; all ranks call it.

    Raises UserError, on all of them, where any node can't.
    """
    needs = SplitNeeds(reader)
    if needs.cache is None:
        return
    with Supply(needs, distributed, Agreement(distributed)) as supply:
        supply.wait(needs.lacks_rest)


class Supply:
    """What a training, or an evaluation, needs in its node's cache; used as a context.

    One process of each node fetches ahead. Where nothing is cached, it does nothing.
    stop: whether this rank must stop, so that nobody waits on.
    """

    def __init__(
        self,
        needs: "TrainingNeeds | SplitNeeds",
        distributed: Distributed,
        agreement: Agreement,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.needs = needs
        self._stop = stop
        self._distributed = distributed
        self._agreement = agreement
        self._prefetcher: Prefetcher | None = None
        self._window: list[Need] = []
        self._bytes, self._seconds = 0, 0.0
        cache = needs.cache
        if cache is not None and distributed.is_local_main:
            from pix2pix.data import prefetch  # only where something is cached

            self._prefetcher = prefetch.Prefetcher(cache, needs)

    def __enter__(self) -> "Supply":
        if self._prefetcher is not None:
            self._say_if_too_large()
            self._prefetcher.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._prefetcher is not None:
            self._prefetcher.__exit__(*error)

    @property
    def failure(self) -> str | None:
        """Why shards can't be fetched."""
        return None if self._prefetcher is None else self._prefetcher.failure

    @property
    def _disk_fails(self) -> bool:
        return self._prefetcher is not None and self._prefetcher.storage_error is not None

    def lacks_soon(self, step: int) -> bool:
        """Return True, where it is told after step `step`, if this node lacks what comes next.

        All know it at the next exchange, so it is about the steps from that one on.
        """
        ahead = self._agreement.every
        return self._agreement.is_due(step) and self.lacks(step + ahead)

    def lacks(self, step: int) -> bool:
        """Return True if this node lacks a shard of the steps from `step` on: two exchanges."""
        if self.needs.cache is None:
            return False
        window = self.needs.window(step)
        if window != self._window and self._prefetcher is not None:
            self._prefetcher.advance(self.needs.position(step))
        self._window = window
        return any(map(lacking, window))

    def wait_for_step(self, step: int) -> float:
        """`wait` for what the steps from number `step` on need, until the next can be told."""
        return self.wait(partial(self.lacks, step))

    def wait(self, lacks: Callable[[], bool]) -> float:
        """Wait until no node `lacks` anything, or a rank must stop; returns seconds.

        It ends, too, where a disk does not answer: readers meet that themselves. Every rank calls
        it. Raises UserError, on all of them, where any node can't fetch.
        """
        if self.needs.cache is None:
            return 0.0
        started = said = time.monotonic()
        pause, longest = POLL_SECONDS
        while True:
            stop = self._stop() or self._disk_fails
            is_short = lacks()
            if is_short and self._prefetcher is not None:
                self._prefetcher.look_again()
            short, failed, stopped = self._agreement.now(is_short, bool(self.failure), stop)
            if failed:
                self._distributed.raise_on_all_ranks(self.failure)
            now = time.monotonic()
            if stopped or not short:
                return now - started
            if now - said > SAY_SECONDS:
                said = now
                self._distributed.say(f"waiting for shards to be fetched: {self._progress()}")
            time.sleep(pause)
            pause = min(2 * pause, longest)

    def figures(self) -> dict[str, float]:
        """Return what this node fetched since the last call, as scalars; empty without a cache."""
        cache = self.needs.cache
        if cache is None:
            return {}
        num_bytes, seconds = cache.fetched_bytes - self._bytes, cache.fetch_seconds - self._seconds
        self._bytes, self._seconds = cache.fetched_bytes, cache.fetch_seconds
        rate = num_bytes / 1e6 / seconds if seconds else 0.0
        return {"data/fetched_mb": num_bytes / 1e6, "speed/fetched_mb_per_second": rate}

    def _progress(self) -> str:
        cache = self.needs.cache
        if cache is None or not cache.fetch_seconds:
            return "the first one is on its way"
        rate = cache.fetched_bytes / 1e6 / cache.fetch_seconds
        return f"{cache.fetched_bytes / 1e6:,.0f} MB so far, {rate:,.1f} MB/s"

    def _say_if_too_large(self) -> None:
        cache = self.needs.cache
        excess = self.needs.num_bytes - cache.most_bytes if cache else 0
        if cache and excess > 0:
            self._distributed.say(
                wrap(
                    f"the shards ({self.needs.num_bytes / 2**30:,.1f} GiB) are larger than the "
                    f"cache {cache.folder} ({cache.most_bytes / 2**30:,.1f} GiB): at least "
                    f"{excess / 2**30:,.1f} GiB are fetched again in each epoch"
                )
            )


class TrainingNeeds:
    """Which shards a training needs, from `step` on; those of validation after the first window.

    steps: how many of them `window` looks at. cache: None where all are read where they lie.
    num_bytes: of all that are cached.
    """

    def __init__(
        self,
        reader: ShardReader,
        config: TrainConfig,
        validation: ShardReader | None,
        step: int,
        steps: int,
    ) -> None:
        self._steps = steps
        self._validation = [] if validation is None else list(filter(is_cached, validation.shards))
        self._shards = [reader.shards[shard] for shard, _ in weighted_shards(reader.weights)]
        self._order = training_order(reader, config)
        self._batch = config.global_batch
        self._end = self._batch * (config.total_steps or 0)
        every = [*filter(is_cached, self._shards), *self._validation]
        self.cache, self.num_shards, self.num_bytes = _totals(every)
        self.soon = self._most_windows() * config.window_shards + len(self._validation)
        self.start = self.position(step)

    def _most_windows(self) -> int:
        """Return how many windows `window` looks at, at most."""
        counts, size = np.sort(self._order.counts), self._order.window_shards
        reach = self._steps * self._batch  # samples, beside the first one
        windows = 1 + math.ceil(reach / int(counts[:size].sum()))
        # The last one of an epoch may be smaller, and so many epochs' ends are touched.
        rest = int(counts[: len(counts) % size].sum())
        ends = math.ceil(reach / self._order.num_samples)
        return windows + (ends if 0 < rest < reach else 0)

    def position(self, step: int) -> int:
        """Where step number `step` starts in the stream; at most the last sample."""
        return min(step * self._batch, self._end - 1)

    def at(self, position: int) -> Iterator[Need]:
        """Return the shards to be fetched, from a position on, in the order of need."""
        for number, (start, window) in enumerate(self._order.windows(position)):
            if number == 1:
                yield from self._validation
            if start >= self._end:
                return
            yield from filter(is_cached, (self._shards[entry] for entry in window.tolist()))

    def window(self, step: int) -> list[Need]:
        """Return what `steps` steps need from step number `step` on: whole windows."""
        positions = range(self.position(step), self.position(step + self._steps) + 1)
        return [self._shards[entry] for entry in self._order.shards_at(positions)]

    def lacks_rest(self) -> bool:
        """Return True if this node lacks a shard of the val splits."""
        return any(map(lacking, self._validation))


class SplitNeeds:
    """Which shards an evaluation needs: all of a split, in its order. Fields as `TrainingNeeds`."""

    def __init__(self, reader: ShardReader) -> None:
        self._shards = list(filter(is_cached, reader.shards))
        self.cache, self.num_shards, self.num_bytes = _totals(self._shards)
        most = self.cache.most_bytes if self.cache else 0
        sizes = accumulate(shard.bytes for _, shard in self._shards)
        self.soon = sum(size <= most for size in sizes)
        self.start = 0

    def position(self, step: int) -> int:
        """Return the start, always."""
        return 0

    def at(self, position: int) -> Iterator[Need]:
        """All shards."""
        return iter(self._shards)

    def window(self, step: int) -> list[Need]:
        """Return what fits the cache."""
        return self._shards[: self.soon]

    def lacks_rest(self) -> bool:
        """Return True if this node lacks a shard of those that fit the cache."""
        return any(map(lacking, self._shards[: self.soon]))


def is_cached(need: Need) -> bool:
    """Return True if the shard is read from its node's cache."""
    data, shard = need
    return data.is_cached(shard)


def lacking(need: Need) -> bool:
    """Return True if the shard must be fetched yet."""
    data, shard = need
    return data.is_cached(shard) and data.cache is not None and not data.cache.has(shard)


def _totals(needs: Sequence[Need]) -> tuple["ShardCache | None", int, int]:
    """Return the cache of these shards, and number and bytes of the different ones."""
    different = {shard.sha256: shard.bytes for _, shard in needs}
    cache = needs[0][0].cache if needs else None
    return cache, len(different), sum(different.values())
