"""Promises between ranks: what one knows all know, an error is everybody's, no rank is alone."""

import os

import pytest
import torch
from torch import nn

from pix2pix.errors import UserError
from pix2pix.run.distributed import Distributed
from pix2pix.system.machine import num_cores
from tests.ranks import run_ranks


def distributed():
    return Distributed(timeout_minutes=1, num_threads=1)


def work_of_main(kind):
    me = distributed()

    def work():
        if kind == "error":
            raise UserError("the disk is on fire")
        return me.rank, "result"

    try:
        return me.run_on_main(work)
    except UserError as error:
        return str(error)


def test_result_or_error_of_rank_0_is_everybodys():
    assert run_ranks(work_of_main, 3, "result") == [(0, "result")] * 3
    assert run_ranks(work_of_main, 3, "error") == ["the disk is on fire"] * 3


def error_of_one_rank(failing):
    me = distributed()
    try:
        me.raise_on_all_ranks(f"rank {me.rank} broke" if me.rank in failing else None)
    except UserError as error:
        return str(error)
    return "fine"


def test_an_error_of_any_rank_is_raised_on_all():
    assert run_ranks(error_of_one_rank, 3, []) == ["fine"] * 3
    assert run_ranks(error_of_one_rank, 3, [1, 2]) == ["rank 1 broke"] * 3
    assert run_ranks(error_of_one_rank, 1, [0]) == ["rank 0 broke"]


def reductions():
    me = distributed()
    values = torch.tensor([1.0, me.rank], dtype=torch.float64)
    total, mean = me.sum(values), me.mean(values)
    return total.tolist(), mean.tolist(), values.tolist()


def test_sums_and_means_leave_their_input_alone():
    for rank, (total, mean, values) in enumerate(run_ranks(reductions, 3)):
        assert total == [3, 3]
        assert mean == [1, 1]
        assert values == [1, rank]


def buffers():
    me = distributed()
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(me.rank + 5)
    norm.weight.data.fill_(me.rank)
    me.broadcast_buffers(norm)
    return norm.running_mean.tolist(), norm.weight.tolist()


def test_every_rank_gets_the_buffers_of_rank_0_and_keeps_its_parameters():
    for rank, (mean, weight) in enumerate(run_ranks(buffers, 3)):
        assert mean == [5, 5]
        assert weight == [rank, rank]


def gradient_of_ranks():
    me = distributed()
    layer = nn.Linear(1, 1, bias=False)
    wrapped = me.parallel(layer)
    wrapped(torch.tensor([[float(me.rank + 1)]])).sum().backward()
    return layer.weight.grad.item()


def test_backward_averages_gradients_over_ranks():
    assert run_ranks(gradient_of_ranks, 3) == [2.0] * 3


def gradients(how, accumulate):
    """Gradients of three layers, in several buckets, after steps that set them to None."""
    me = distributed()
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Linear(7, 7) for _ in range(3)))
    if how == "torch's defaults":
        wrapped = nn.parallel.DistributedDataParallel(layers)
    else:
        wrapped = me.parallel(layers, how)
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-2, fused=True)
    for step in range(4):
        inputs = torch.randn(5, 7, generator=torch.Generator().manual_seed(9 * step + me.rank))
        if accumulate:
            with wrapped.no_sync():
                wrapped(inputs).square().mean().backward()
        wrapped(inputs.flip(0)).square().mean().backward()
        found = [parameter.grad.clone() for parameter in layers.parameters()]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    views = wrapped.gradient_as_bucket_view
    return views, [g.tolist() for g in found], [p.tolist() for p in layers.parameters()]


@pytest.mark.parametrize("accumulate", [False, True])
def test_gradients_as_views_of_buckets_are_those_of_torchs_defaults_to_the_bit(accumulate):
    expected = run_ranks(gradients, 2, "torch's defaults", accumulate)
    found = run_ranks(gradients, 2, "none", accumulate)
    assert [views for views, *_ in (*expected, *found)] == [False, False, True, True]
    assert [values for _, *values in found] == [values for _, *values in expected]


def test_compressed_gradients_are_rounded_to_bf16_and_alike_on_all_ranks():
    first, second = run_ranks(gradients, 2, "bf16", False)
    assert first == second
    sent = torch.cat([torch.tensor(values).flatten() for values in first[1]])
    exact = torch.cat(
        [torch.tensor(v).flatten() for v in run_ranks(gradients, 2, "none", False)[0][1]]
    )
    assert torch.equal(sent, sent.bfloat16().float())
    assert not torch.equal(sent, exact)
    # 2^-8 of each rank's part and of the sum; parts of either sign may cancel.
    assert torch.allclose(sent, exact, rtol=0.1, atol=2e-3)


def threads_when_told(told):
    os.environ["OMP_NUM_THREADS"] = told
    Distributed(timeout_minutes=1).barrier()  # rank 0 keeps what the others still need to join
    return torch.get_num_threads()


def test_threads_are_the_users_or_the_cores_shared_among_processes():
    assert run_ranks(threads_when_told, 1, "3") == [3]
    assert run_ranks(threads_when_told, 1, "1") == [num_cores()]
    assert run_ranks(threads_when_told, 2, "1") == [max(1, num_cores() // 2)] * 2
