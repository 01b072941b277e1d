"""Promises of what is fetched when: whatever a step needs comes, however small the cache is."""

from hashlib import sha256
from itertools import islice

import pytest

from pix2pix.data.cache import ShardCache
from pix2pix.data.data_set import DataSet
from pix2pix.data.reader import ShardReader
from pix2pix.data.shards import Shard, Split
from pix2pix.run.supply import TrainingNeeds
from tests.small_training import tiny_config


def reader_of(cache, split, counts):
    shards = tuple(
        Shard(
            f"{split}-{number:06d}.tar",
            count,
            1000,
            sha256(f"{split}{number}".encode()).hexdigest(),
        )
        for number, count in enumerate(counts)
    )
    data = DataSet("folder", Split(split, shards, {"short_side": 72}, {}), cache=cache, whole=True)
    return ShardReader([data], 64)


@pytest.mark.parametrize(
    ("counts", "window", "batch", "steps"),
    [
        ([5, 5, 5, 5, 4], 1, 6, 2),  # a step reaches over several windows
        ([5, 5, 5, 5, 4], 2, 6, 2),
        ([5, 5, 5, 5, 4], 16, 6, 2),
        ([50] * 9 + [1], 3, 4, 2),
        ([3, 3, 3, 1], 2, 10, 2),  # two steps reach over three epochs' ends
        ([5] * 40, 2, 6, 8),  # more than 32 ranks exchange their flags every few steps
        ([3] * 20 + [1], 2, 4, 32),  # two epochs
    ],
)
def test_what_the_next_steps_need_is_fetched_whatever_the_caches_size(
    tmp_path, counts, window, batch, steps
):
    cache = ShardCache(tmp_path, 0.0)
    config = tiny_config(
        "folder", tmp_path, global_batch=batch, window_shards=window, total_steps=99
    )
    readers = reader_of(cache, "train", counts), reader_of(cache, "val", [2, 2])
    needs = TrainingNeeds(readers[0], config, readers[1], 0, steps)
    for step in range(99 - steps):
        plan = dict.fromkeys(
            shard.name for _, shard in islice(needs.at(needs.position(step)), 10 * len(counts))
        )
        whatever_the_size = [*plan][: needs.soon]
        assert {shard.name for _, shard in needs.window(step)} <= {*whatever_the_size}
