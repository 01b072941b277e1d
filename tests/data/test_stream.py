"""Promises of the stream: the same batches from any number of workers, and none written over."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from pix2pix.data.batches import EvaluationBatches, TrainMicroBatches
from pix2pix.data.data_set import open_data
from pix2pix.data.reader import ShardReader
from pix2pix.data.stream import AHEAD, IN_USE, BatchStream
from pix2pix.errors import UserError
from tests.small_training import tiny_config

CPU = torch.device("cpu")
MANY = range(2, 40)  # batches: more than there are slots

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture
def micro_batches(tiny_shards, tmp_path):
    reader = ShardReader(open_data([str(tiny_shards)], "train", 64), 64)
    return TrainMicroBatches(reader, tiny_config(tiny_shards, tmp_path), rank=0, world_size=1)


def is_batch(batch, expected):
    return (
        batch.keys == expected.keys
        and torch.equal(batch.gray, expected.gray)
        and torch.equal(batch.color, expected.color)
        and torch.equal(batch.flip, expected.flip)
        and batch.color.stride() == expected.color.stride()
    )


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_batches_do_not_depend_on_the_number_of_workers(micro_batches, num_workers):
    with BatchStream(micro_batches, MANY, CPU, num_workers) as stream:
        for number, batch in zip(MANY, stream, strict=True):
            assert is_batch(batch, micro_batches[number])


def test_a_smaller_last_batch_comes_as_it_is(micro_batches):
    batches = EvaluationBatches(micro_batches.reader, 0, 1, batch_size=7)
    with BatchStream(batches, range(len(batches)), CPU, num_workers=2) as stream:
        sizes = []
        for number, batch in enumerate(stream):
            assert is_batch(batch, batches[number])
            sizes.append(len(batch.flip))
    assert sizes == [7, 7, 7, 3]


def test_where_no_file_lies_in_memory_the_batches_are_the_same(micro_batches, monkeypatch):
    monkeypatch.delattr("os.memfd_create", raising=False)
    with BatchStream(micro_batches, range(3), CPU, num_workers=1) as stream:
        assert all(is_batch(batch, micro_batches[number]) for number, batch in enumerate(stream))


def test_no_batch_is_written_over_while_it_is_kept(micro_batches):
    with BatchStream(micro_batches, MANY, CPU, num_workers=2) as stream:
        kept = list(stream)  # most of them find no slot
    assert all(is_batch(batch, micro_batches[n]) for n, batch in zip(MANY, kept, strict=True))


def test_no_batch_is_written_over_while_a_part_of_it_is_kept(micro_batches):
    with BatchStream(micro_batches, MANY, CPU, num_workers=2) as stream:
        kept = [batch.color[1, :, 2:9] for batch in stream]
    for number, micro_batch in zip(MANY, kept, strict=True):
        assert torch.equal(micro_batch, micro_batches[number].color[1, :, 2:9])


def test_memory_of_batches_that_were_dropped_is_used_again(micro_batches):
    with BatchStream(micro_batches, MANY, CPU, num_workers=2) as stream:
        places = {batch.gray.data_ptr() for batch in stream}
    assert len(places) <= 2 * AHEAD + IN_USE


def test_batches_need_no_room_in_dev_shm(micro_batches):
    with BatchStream(micro_batches, MANY, CPU, num_workers=2) as stream:
        kept = list(stream)
        processes = [os.getpid(), *(worker.pid for worker in stream._batches._workers)]
        maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in processes)
    assert len(kept) == len(MANY)
    assert "/torch_" not in maps  # torch's name for memory that it shares


def test_workers_are_gone_when_the_stream_is_left(micro_batches):
    with BatchStream(micro_batches, MANY, CPU, num_workers=2) as stream:
        stream.next()
        workers = stream._batches._workers
        assert all(worker.is_alive() for worker in workers)
    assert not any(worker.is_alive() for worker in workers)


def test_a_broken_sample_is_named_and_does_not_raise_in_next(tiny_shards, tmp_path):
    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    shard = shards / "train-000002.tar"
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8\xff\xe0", b"\0\0\0\0"))
    broken = ShardReader(open_data([str(shards)], "train", 64), 64)
    micro_batches = TrainMicroBatches(broken, tiny_config(shards, tmp_path), rank=0, world_size=1)
    names = [number for number in range(4) if micro_batches[number].broken]
    assert names
    assert "train-000002.tar/" in micro_batches[names[0]].broken
    with BatchStream(micro_batches, range(4), CPU, num_workers=1) as stream:
        batches = [stream.next() for _ in range(8)]  # goes on with what it has
        assert "train-000002.tar/" in stream.broken
        assert all(batch.color.shape == (6, 3, 64, 64) for batch in batches)
    with (
        BatchStream(micro_batches, range(4), CPU, num_workers=0) as stream,
        pytest.raises(UserError, match=r"broken sample train-000002\.tar/"),
    ):
        list(stream)


def test_a_dead_worker_is_an_error_that_names_it_and_says_what_to_do(micro_batches):
    with BatchStream(micro_batches, range(500), CPU, num_workers=1) as stream:
        stream.next()
        pid = stream._batches._workers[0].pid
        os.kill(pid, 9)
        for _ in range(20):
            stream.next()
        assert str(pid) in stream.broken
        assert "--num_workers" in stream.broken
