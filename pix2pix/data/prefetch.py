"""Shards fetched ahead of need, and removed when they are needed last: one thread per node.

The order is known to the end of the training, so nothing is guessed: the cache holds those shards
that are needed next, as many as fit (Belady's rule). No torch.
"""

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Protocol

from filelock import FileLock

from pix2pix.data.cache import MARK, ShardCache
from pix2pix.data.data_set import Need
from pix2pix.errors import StorageError, UserError
from pix2pix.system.reading import LONGEST_PAUSE_SECONDS, TRANSIENT


class Needs(Protocol):
    """Which shards are needed when.

    at: those from a position on, in order; it names one repeatedly, and may have no end.
    num_shards: how many different ones. soon: how many of the first are in use; another training
    that shares the cache does not remove them. start: the position that is needed first.
    """

    num_shards: int
    soon: int
    start: int

    def at(self, position: int) -> Iterator[Need]:
        """Return the shards to be fetched, from a position on, in the order of need."""


class Prefetcher:
    """Fetches the shards of `needs` into the cache, in the order of need, until it is left.

    failure: what it could not do; the thread has ended then.
    storage_error: what a disk that does not answer says, the shards' own or the cache's; it goes on
        trying. Who reads such a shard meets the disk, too, and knows what to do.
    """

    def __init__(self, cache: ShardCache, needs: Needs) -> None:
        self.cache = cache
        self.failure: str | None = None
        self.storage_error: str | None = None
        self._needs = needs
        self._position = needs.start
        self._changed = threading.Condition()
        self._left = False
        self._is_asked = False
        self._mark = cache.folder / f"{MARK}{uuid.uuid4().hex}.json"
        self._alive = FileLock(self._mark.with_suffix(".lock"))
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetcher":
        with contextlib.suppress(OSError, NotImplementedError):
            self._alive.acquire()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._left = True
            self._changed.notify()
        self._alive.release()
        for path in (self._mark, self._mark.with_suffix(".lock")):
            path.unlink(missing_ok=True)

    def advance(self, position: int) -> None:
        """Forget what lies before `position`: it is not needed any more."""
        with self._changed:
            self._position = position
            self._changed.notify()

    def look_again(self) -> None:
        """Look for what is missing: a process that fetched by itself may have removed it."""
        with self._changed:
            self._is_asked = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            while not self._left:
                with self._changed:
                    position = self._position
                    self._is_asked = False
                try:
                    fetched = self._fetch_next(self._plan(position))
                except (StorageError, OSError) as error:
                    if isinstance(error, OSError) and error.errno not in TRANSIENT:
                        raise
                    self.storage_error = str(error)
                    self._wait_for_change(position, LONGEST_PAUSE_SECONDS)
                else:
                    self.storage_error = None
                    if not fetched:
                        self._wait_for_change(position)
        except (UserError, OSError) as error:
            self.failure = str(error)

    def _wait_for_change(self, position: int, most_seconds: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._left or self._is_asked or self._position != position,
                timeout=most_seconds,
            )

    def _plan(self, position: int) -> list[Need]:
        """Every shard in the order of need; tells others what is in use."""
        plan: dict[str, Need] = {}
        for data, shard in self._needs.at(position):
            plan.setdefault(shard.sha256, (data, shard))
            if len(plan) == self._needs.num_shards:
                break
        self._tell(list(plan.values())[: self._needs.soon])
        return list(plan.values())

    def _tell(self, in_use: Sequence[Need]) -> None:
        aside = self._mark.with_suffix(".tmp")
        with self._changed, contextlib.suppress(OSError):
            if not self._left:  # else the mark has been taken back
                aside.write_text(json.dumps([self._name(need) for need in in_use]))
                aside.replace(self._mark)

    def _fetch_next(self, plan: Sequence[Need]) -> bool:
        """Fetch the first shard that is not there, of those that fit; False if all are."""
        room = self.cache.most_bytes
        for number, (data, shard) in enumerate(plan):
            room -= shard.bytes
            if room < 0 and number >= self._needs.soon:
                return False
            if not self.cache.has(shard):
                self._make_room(shard.bytes, plan, number)
                data.tar(shard)
                data.index(shard)
                return True
        return False

    def _make_room(self, num_bytes: int, plan: Sequence[Need], number: int) -> None:
        """Remove shards until `num_bytes` fit: unknown ones, then those that are needed last.

        Those needed before number `number` of the plan stay, and what others use.
        """
        there = self.cache.files()
        excess = sum(there.values()) + num_bytes - self.cache.most_bytes
        if excess <= 0:
            return
        names = [self._name(need) for need in plan]
        kept = self.cache.in_use(but=self._mark) | set(names[:number])
        unknown = sorted(there.keys() - set(names))
        for name in unknown + names[:number:-1]:
            if name in there and name not in kept:
                self.cache.remove(name)
                excess -= there[name]
            if excess <= 0:
                return

    def _name(self, need: Need) -> str:
        return self.cache.path(need[1]).name
