"""All-reduce is really made, also without GPUs, and one that does not add up is a row."""

import re

import pytest
import torch

from pix2pix.doctor import all_reduce
from pix2pix.doctor.all_reduce import rate_row, reduce_over


def test_two_processes_add_up_and_tell_their_rate():
    row = reduce_over(2, "cpu")
    assert (row.what, row.status) == ("all-reduce", "ok")
    rate = re.fullmatch(r"([\d.]+) GB/s over 2 processes on CPUs \(gloo\); .*", row.text)
    assert float(rate[1]) > 0


def test_processes_that_cannot_meet_are_a_row(monkeypatch):
    monkeypatch.setattr(all_reduce, "_join", breaks)
    row = reduce_over(2, "cpu")
    assert (row.status, row.text) == ("fails", "RuntimeError: NCCL error: unhandled cuda error")


def breaks(rank, *rest):
    raise RuntimeError("NCCL error: unhandled cuda error")


def test_a_sum_that_is_wrong_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: None)
    with pytest.raises(RuntimeError, match="the sum of 2 ones is 1"):
        all_reduce.measure(torch.device("cpu"))


def test_slow_gpus_are_a_note():
    assert rate_row("all-reduce", 1.2, 8, "cuda").status == "note"
    assert rate_row("all-reduce", 120.0, 8, "cuda").status == "ok"
