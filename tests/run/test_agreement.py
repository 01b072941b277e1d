"""What one rank knows all know, at the same step, and many ranks do not reduce after every step."""

import os

import pytest
import torch.distributed as dist

from pix2pix.run import agreement as module
from pix2pix.run.agreement import Agreement, steps_between
from pix2pix.run.distributed import Distributed
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config


def distributed():
    return Distributed(timeout_minutes=1, num_threads=1)


def exchange_flags():
    me = distributed()
    agreement = Agreement(me)
    return [agreement.exchange(step, step == 2 and me.rank == 1, step == 4) for step in range(6)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_flag_of_one_rank_is_known_to_all_one_step_later(world_size):
    for told in run_ranks(exchange_flags, world_size):
        assert told == [
            (False, False),
            (False, False),
            (False, False),
            (True, False),
            (False, False),
            (False, True),
        ]


def test_a_single_process_agrees_with_itself_in_the_same_rhythm():
    told = run_ranks(exchange_flags, 1)[0]
    assert told[3] == (False, False)
    assert told[5] == (False, True)


@pytest.mark.parametrize(
    ("world_size", "steps"), [(1, 1), (8, 1), (32, 1), (33, 2), (256, 8), (1024, 16), (4096, 16)]
)
def test_many_ranks_exchange_less_often(world_size, steps):
    assert steps_between(world_size) == steps


def flags_every_4_steps(told_at):
    """The steps after which this rank was told, and the number of reductions."""
    me, count = distributed(), 0
    reduce = dist.all_reduce

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return reduce(*args, **kwargs)

    dist.all_reduce = counted
    agreement = Agreement(me, every=4)
    heard = []
    for step in range(1, 25):
        if agreement.exchange(step, me.rank == 1 and step == told_at) == (True,):
            heard.append(step)
    return heard, count


@pytest.mark.parametrize("told_at", [1, 4, 5, 6, 7, 8])
def test_what_is_told_between_two_exchanges_is_known_within_two_of_them(told_at):
    first, second = run_ranks(flags_every_4_steps, 2, told_at)
    assert first == second
    (heard,), reductions = first
    assert told_at < heard <= told_at + 8
    assert heard % 4 == 0
    assert reductions == 24 // 4


def fit_with_few_exchanges(config, stop_after=None):
    module.RANKS_PER_STEP = 1  # two ranks exchange every two steps, as 64 do
    return fit(config, stop_after=stop_after if os.environ["RANK"] == "1" else None)


def test_a_stop_between_two_exchanges_saves_soon_and_goes_on_to_the_bit(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", total_steps=12)
    whole = run_ranks(fit, 2, tiny_config(tiny_shards, tmp_path / "whole", total_steps=12))
    for result in run_ranks(fit_with_few_exchanges, 2, config, 3):
        assert (result["outcome"], result["step"]) == ("stopped", 6)  # told at 3, sent at 4
    resumed = run_ranks(fit_with_few_exchanges, 2, config)
    assert [result["first_step"] for result in resumed] == [6, 6]
    assert [result["digests"] for result in resumed] == [result["digests"] for result in whole]
