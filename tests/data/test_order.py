"""Promises of the order of samples: arithmetic, the same for any ranks, every sample once."""

import numpy as np
import pytest

from pix2pix.data.order import (
    SampleOrder,
    micro_batch_positions,
    permutation,
    samples_at,
    seed_of,
    uniforms,
)

COUNTS = [10, 3, 7, 10, 1, 9, 4]


def pairs(order, positions):
    samples = order.samples(positions)
    return list(zip(samples.shard.tolist(), samples.index.tolist(), strict=True))


def test_every_sample_comes_exactly_once_per_epoch():
    order = SampleOrder(COUNTS, seed=3, window_shards=2)
    everything = sorted((s, i) for s, count in enumerate(COUNTS) for i in range(count))
    for epoch in range(3):
        begin = epoch * order.num_samples
        assert sorted(pairs(order, range(begin, begin + order.num_samples))) == everything


def test_epoch_of_a_position_is_its_quotient_by_the_number_of_samples():
    order = SampleOrder(COUNTS, seed=3, window_shards=2)
    positions = range(order.num_samples - 2, 2 * order.num_samples + 2)
    expected = [position // order.num_samples for position in positions]
    assert order.samples(positions).epoch.tolist() == expected


def test_4096_ranks_see_each_of_10_million_samples_exactly_once_per_epoch():
    order = SampleOrder([10_000] * 1000, seed=3)
    global_batch = 4096 * 4
    seen = np.zeros(order.num_samples, dtype=np.int8)
    for begin in range(0, order.num_samples, 100_000):
        samples = order.samples(range(begin, begin + 100_000))
        np.add.at(seen, samples.shard * 10_000 + samples.index, 1)
    assert seen.min() == seen.max() == 1
    for step in (0, 1, 610, 123_456):  # 610 runs over the edge of the epoch
        parts = [
            micro_batch_positions(step, rank, 4096, 0, 1, global_batch) for rank in range(4096)
        ]
        assert all(len(part) == 4 for part in parts)
        drawn = [pair for part in parts for pair in pairs(order, part)]
        assert drawn == pairs(order, range(step * global_batch, (step + 1) * global_batch))


@pytest.mark.parametrize(
    ("world_size", "num_micro_batches"), [(1, 1), (2, 1), (4, 1), (8, 1), (2, 4), (1, 8)]
)
def test_global_batches_are_the_same_for_any_number_of_ranks_and_micro_batches(
    world_size, num_micro_batches
):
    order = SampleOrder(COUNTS, seed=3, window_shards=2)
    for step in range(8):  # runs over the edge of the epoch
        drawn = [
            pair
            for rank in range(world_size)
            for micro_batch in range(num_micro_batches)
            for pair in pairs(
                order,
                micro_batch_positions(step, rank, world_size, micro_batch, num_micro_batches, 8),
            )
        ]
        assert drawn == pairs(order, range(step * 8, step * 8 + 8))


def test_order_does_not_depend_on_what_was_asked_before():
    fresh = pairs(SampleOrder(COUNTS, 3, 2), range(50, 60))
    used = SampleOrder(COUNTS, 3, 2)
    for start in (0, 30, 200, 7):
        used.samples(range(start, start + 5))
    assert pairs(used, range(50, 60)) == fresh


def test_reads_stay_within_a_window_of_shards():
    order = SampleOrder([5] * 20, seed=0, window_shards=4)
    for window in range(5):
        samples = order.samples(range(window * 20, window * 20 + 20))
        assert len(set(samples.shard.tolist())) == 4


def test_epochs_and_seeds_have_orders_of_their_own():
    order = SampleOrder(COUNTS, seed=3)
    n = order.num_samples
    first = pairs(order, range(n))
    assert pairs(order, range(n, 2 * n)) != first
    assert pairs(SampleOrder(COUNTS, seed=4), range(n)) != first


def test_hash_order_is_the_one_that_published_runs_used():
    # Changing these numbers changes the order of every run that there is.
    assert permutation(8, 0, 1, "key").tolist() == [3, 7, 6, 0, 2, 1, 5, 4]
    assert seed_of("dropout", 0, 5, 0, 1) == 8551743666900946073
    assert uniforms(2, "augment", 0, 1, 2, 3).tolist() == [0.601658724755699, 0.46016038195879105]


def test_stream_of_samples_is_the_one_that_published_runs_saw():
    order = SampleOrder(COUNTS, seed=3, window_shards=2)
    edge = 2 * order.num_samples
    assert pairs(order, range(edge - 3, edge + 3)) == [
        (5, 8),
        (5, 0),
        (5, 2),
        (2, 5),
        (6, 0),
        (2, 2),
    ]


def test_ten_million_samples_on_4096_ranks_are_arithmetic():
    order = SampleOrder([1000] * 10_000, seed=0)
    step, world_size, batch = 2441, 4096, 4096  # the step that crosses into the second epoch
    whole = pairs(order, range(step * batch, (step + 1) * batch))
    ranks = [
        pair
        for rank in range(world_size)
        for pair in pairs(order, micro_batch_positions(step, rank, world_size, 0, 1, batch))
    ]
    assert ranks == whole
    assert set(order.samples(range(step * batch, (step + 1) * batch)).epoch.tolist()) == {0, 1}


def test_uniforms_are_spread_over_the_unit_interval():
    draws = np.array([uniforms(3, "test", i) for i in range(2000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.08


def test_samples_at_follow_manifest_order():
    every = samples_at(COUNTS, np.arange(sum(COUNTS)))
    expected = [(s, i) for s, count in enumerate(COUNTS) for i in range(count)]
    assert list(zip(every.shard.tolist(), every.index.tolist(), strict=True)) == expected
    some = samples_at([2, 0, 3], np.array([4, 1, 2]))
    assert some.shard.tolist() == [2, 0, 2]
    assert some.index.tolist() == [2, 1, 0]
