"""Promises of fetching ahead: in the order of need, and nothing leaves that is needed."""

import json
import time
from dataclasses import dataclass

import pytest
from filelock import FileLock

from pix2pix.data.cache import ShardCache
from pix2pix.data.data_set import DataSet
from pix2pix.data.prefetch import Prefetcher
from pix2pix.data.shards import open_split
from tests.data import shard_server
from tests.data.shard_server import ShardServer


@dataclass
class ListedNeeds:
    """One shard at each position, by its number."""

    shards: list
    soon: int = 1
    start: int = 0

    @property
    def num_shards(self):
        return len({shard.sha256 for _, shard in self.shards})

    def at(self, position):
        return iter(self.shards[position:])


@pytest.fixture
def server(tiny_shards):
    with ShardServer(tiny_shards) as server:
        yield server


def needs_of(server, tmp_path, order, room, **values):
    """Needs in this order of shards, and a cache with room for so many."""
    split = open_split(server.folder, "train")
    most = max(shard.bytes for shard in split.shards)
    cache = ShardCache(tmp_path, (room + 0.5) * most / 2**30)
    data = DataSet(server.url, split, cache=cache)
    return cache, ListedNeeds([(data, split.shards[number]) for number in order], **values)


def wait_for(condition, seconds=20):
    """The thread has no other sign of what it has done than its files."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def there(cache, needs):
    return [number for number, (_, shard) in enumerate(needs.shards) if cache.has(shard)]


def test_shards_come_in_the_order_of_need_as_many_as_fit(server, tmp_path):
    cache, needs = needs_of(server, tmp_path, [3, 1, 4, 0, 2], room=3)
    with Prefetcher(cache, needs) as prefetcher:
        wait_for(lambda: len(there(cache, needs)) == 3)
        assert list(server.tars) == ["train-000003.tar", "train-000001.tar", "train-000004.tar"]
        prefetcher.advance(1)
        wait_for(lambda: there(cache, needs) == [1, 2, 3])
        prefetcher.advance(2)
        wait_for(lambda: there(cache, needs) == [2, 3, 4])
    assert set(server.tars.values()) == {1}


def test_what_is_needed_last_leaves_first(server, tmp_path):
    cache, needs = needs_of(server, tmp_path, [0, 1, 2, 0, 1], room=2)
    with Prefetcher(cache, needs) as prefetcher:
        wait_for(lambda: there(cache, needs)[:2] == [0, 1])
        prefetcher.advance(2)  # 2 now, 0 next, 1 last
        wait_for(lambda: cache.has(needs.shards[2][1]))
        assert cache.has(needs.shards[0][1])
        assert not cache.has(needs.shards[1][1])
    assert server.tars["train-000000.tar"] == 1


def test_what_another_training_uses_stays(server, tmp_path):
    cache, needs = needs_of(server, tmp_path, [0, 1], room=1)
    theirs = open_split(server.folder, "train").shards[4]
    dead = open_split(server.folder, "train").shards[3]
    for shard in (theirs, dead):
        cache.get(f"{server.url}/{shard.name}", shard)
    for name, shard in (("live", theirs), ("dead", dead)):
        mark = tmp_path / f"needs-{name}.json"
        mark.write_text(json.dumps([cache.path(shard).name]))
    with FileLock(tmp_path / "needs-live.lock"), Prefetcher(cache, needs):
        wait_for(lambda: cache.has(needs.shards[0][1]))
        assert cache.has(theirs)
        assert not cache.has(dead)
    assert not (tmp_path / "needs-dead.json").exists()


def test_what_another_process_removed_comes_again_for_who_waits(server, tmp_path):
    cache, needs = needs_of(server, tmp_path, [0, 1], room=2)
    with Prefetcher(cache, needs) as prefetcher:
        last = needs.shards[1][1]
        wait_for(lambda: cache.has(last) and cache.index_path(last).exists())
        for _ in range(3):  # the first time it may still look by itself
            cache.remove(cache.path(last).name)
            wait_for(lambda: prefetcher.look_again() or cache.has(last))
    assert server.tars["train-000001.tar"] == 4


def test_it_says_what_it_uses_and_takes_that_back(server, tmp_path):
    cache, needs = needs_of(server, tmp_path, [0, 1, 2], room=3, soon=2)
    with Prefetcher(cache, needs):
        wait_for(lambda: len(there(cache, needs)) == 3)
        (mark,) = tmp_path.glob("needs-*.json")
        names = [cache.path(shard).name for _, shard in needs.shards]
        assert json.loads(mark.read_text()) == names[:2]
    assert list(tmp_path.glob("needs-*")) == []


def test_a_failure_is_kept_for_who_waits(server, tmp_path):
    cache, needs = needs_of(server, tmp_path, [0, 1], room=2)
    server.faults["train-000001.tar"].append(shard_server.gone)
    with Prefetcher(cache, needs) as prefetcher:
        wait_for(lambda: prefetcher.failure is not None)
        assert "train-000001.tar: HTTP status 404" in prefetcher.failure
