"""Promises of reading: pictures as others packed them, several data sets, an index read once."""

import json
import os
import pickle
import shutil
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch

from pix2pix.data import data_set as data_set_module
from pix2pix.data.batches import EvaluationBatches, TrainMicroBatches
from pix2pix.data.data_set import epoch_samples, open_data, with_cache
from pix2pix.data.index import index_path, read_index
from pix2pix.data.order import uniforms
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from tests.data.packed_pictures import write_pictures
from tests.data.shard_server import ShardServer
from tests.small_training import tiny_config


def reader_of(*roots, weights=(), image_size=64):
    data_sets = open_data([str(root) for root in roots], "train", image_size, weights)
    return ShardReader(data_sets, image_size)


def micro_batches_of(reader, tmp_path, batch=6, **changes):
    config = tiny_config("shards", tmp_path, global_batch=batch, **changes)
    return TrainMicroBatches(reader, config, rank=0, world_size=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("packed") / "indexed")


def test_of_a_cache_few_shards_are_kept_open(tiny_shards, tmp_path, monkeypatch):
    """A shard that leaves the cache holds its room for as long as a process has it open."""
    monkeypatch.setattr("pix2pix.data.reader.OPEN_CACHED", 2)
    data_sets = with_cache(reader_of(tiny_shards).data_sets, str(tmp_path / "cache"), 1)
    reader = ShardReader(data_sets, 64)
    plain = reader_of(tiny_shards)
    for shard in [0, 1, 0, 2, 3, 4, 3, 0]:
        expected = plain.square(shard, 1, 64, 0.5, 0.5)
        found = reader.square(shard, 1, 64, 0.5, 0.5)
        assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
        assert len(open_files_in(tmp_path / "cache")) <= 2
    assert len(pickle.dumps(reader)) > 0  # goes to loader workers without its files


def open_files_in(folder):
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [target for target in targets if target.startswith(str(folder))]


def test_pictures_as_others_packed_them_make_batches(pictures, tmp_path):
    batch = micro_batches_of(reader_of(pictures), tmp_path, batch=12)[0]
    assert batch.broken is None
    assert batch.gray.shape == (12, 1, 64, 64)
    assert batch.color.shape == (12, 3, 64, 64)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # Rec. 601
    luma = (batch.color * weights).sum(dim=1, keepdim=True)
    assert (luma - batch.gray.float()).abs().max() < 1
    assert len(set(batch.keys)) == 12


def test_pictures_are_evaluated_at_their_center(pictures):
    batches = EvaluationBatches(reader_of(pictures), 0, 1, 4)
    assert len(batches) == 3
    assert batches[0].color.shape == (4, 3, 72, 72)  # ceil(64 * 286 / 256)
    assert batches[0].keys[0] == "others-00000.tar/sub/00000"


def test_a_broken_picture_is_named(pictures, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(pictures, root)
    tar = root / "others-00000.tar"
    offset, size = read_index(index_path(root, tar.name)).place("picture", 1)
    data = bytearray(tar.read_bytes())
    data[offset : offset + size] = b"?" * size
    tar.write_bytes(data)
    with pytest.raises(UserError, match=r"broken sample others-00000.tar/sub/00001 .*index_shards"):
        reader_of(root).square(0, 1, 64, 0, 0)


def test_an_index_of_pictures_is_held_to_its_sum(pictures, tmp_path):
    root = tmp_path / "altered"
    shutil.copytree(pictures, root)
    path = index_path(root, "others-00001.tar")
    path.write_bytes(path.read_bytes().replace(b"sub/10001", b"sub/10009"))
    with pytest.raises(UserError, match=r"others-00001.index.npz was altered"):
        reader_of(root)
    path.unlink()
    with pytest.raises(UserError, match=r"others-00001.index.npz is missing"):
        reader_of(root)


def test_an_older_folder_gets_its_indexes_once(tiny_shards, tmp_path, monkeypatch):
    root = tmp_path / "older"
    shutil.copytree(tiny_shards, root)
    for path in root.glob("*.index.npz"):
        path.unlink()
    made = []
    make = data_set_module.index_shard
    monkeypatch.setattr(
        data_set_module, "index_shard", lambda *args: made.append(args) or make(*args)
    )
    for _ in range(2):
        reader = reader_of(root)
        names = [reader.name(shard, 0) for shard in range(5)]
        again = pickle.loads(pickle.dumps(reader))
        assert [again.name(shard, 0) for shard in range(5)] == names
    assert len(made) == 5
    monkeypatch.setattr(data_set_module, "write_index", _refuse)
    for path in root.glob("*.index.npz"):
        path.unlink()
    reader = reader_of(root)  # a folder that is read only
    for _ in range(2):
        assert [reader.name(shard, 0) for shard in range(5)] == names
    assert len(made) == 10  # kept in this process


def _refuse(*_):
    raise OSError(30, "Read-only file system")


def test_an_index_of_another_tar_is_made_again(tiny_shards, tmp_path):
    root = tmp_path / "mixed"
    shutil.copytree(tiny_shards, root)
    reader = reader_of(root)
    names = [reader.name(shard, 1) for shard in range(2)]
    first, second = (index_path(root, f"train-{number:06d}.tar") for number in range(2))
    shutil.copy(second, first)
    reader = reader_of(root)
    assert [reader.name(shard, 1) for shard in range(2)] == names


def test_a_reader_reads_each_index_once(tiny_shards, monkeypatch):
    read = []
    monkeypatch.setattr(
        data_set_module, "read_index", lambda path: read.append(path) or read_index(path)
    )
    reader = reader_of(tiny_shards)
    for _ in range(3):
        for shard in range(5):
            reader.square(shard, 0, 64, 0, 0)
    assert len(set(read)) == len(read) <= 5


def test_one_data_set_is_cropped_as_ever(tiny_shards, tmp_path):
    # The key of a crop's numbers decides what a resumed run sees: it must never change.
    micro_batches = micro_batches_of(reader_of(tiny_shards), tmp_path)
    samples = micro_batches.order.samples(range(6))
    rows = zip(samples.epoch.tolist(), samples.shard.tolist(), samples.index.tolist(), strict=True)
    for crop, (epoch, shard, index) in zip(micro_batches.crops(0), rows, strict=True):
        numbers = uniforms(3, "augment", 0, epoch, shard, index)
        assert (crop.shard, crop.index) == (shard, index)
        assert (crop.top, crop.left, crop.flip) == tuple(numbers)


def test_weights_say_how_often_a_data_set_is_seen_in_an_epoch(tiny_shards, pictures, tmp_path):
    reader = reader_of(tiny_shards, pictures, weights=(1, 3))
    assert epoch_samples(reader.data_sets) == 24 + 3 * 12
    micro_batches = micro_batches_of(reader, tmp_path)
    crops = list(chain.from_iterable(micro_batches.crops(number) for number in range(10)))
    seen = Counter((crop.shard, crop.index) for crop in crops)
    assert {count for (shard, _), count in seen.items() if shard < 5} == {1}
    assert {count for (shard, _), count in seen.items() if shard >= 5} == {3}
    assert len(seen) == 24 + 12
    repeated = [crop for crop in crops if (crop.shard, crop.index) == (5, 0)]
    assert len({crop.top for crop in repeated}) == 3  # the repeat is part of the crop's key


def test_data_sets_of_different_short_sides_train_as_one(tiny_shards, pictures, tmp_path):
    larger = reader_of(tiny_shards, pictures, image_size=64)
    other = [*larger.data_sets[:1], open_data([str(pictures)], "train", 128)[0]]
    reader = ShardReader(other, 64)
    assert reader.short_sides == (72, 143)
    micro_batches = micro_batches_of(reader, tmp_path, batch=36)
    batch = micro_batches[0]
    assert batch.broken is None
    assert batch.color.shape == (36, 3, 64, 64)
    assert len(set(batch.keys)) == 36
    assert EvaluationBatches(reader, 0, 1, 36)[0].color.shape == (36, 3, 64, 64)


def test_the_same_order_for_any_number_of_ranks_with_weights(tiny_shards, pictures, tmp_path):
    reader = reader_of(tiny_shards, pictures, weights=(2, 1))
    config = tiny_config("shards", tmp_path, global_batch=12)
    whole = TrainMicroBatches(reader, config, 0, 1)
    for ranks in (2, 4):
        parts = [TrainMicroBatches(reader, config, rank, ranks) for rank in range(ranks)]
        for number in (0, 7):
            crops = list(chain.from_iterable(part.crops(number) for part in parts))
            assert crops == whole.crops(number)


def test_pictures_at_a_url_are_read_through_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIX2PIX_CACHE", str(tmp_path))
    with ShardServer(tmp_path / "indexed") as server:
        # Only the second tar lies at a URL; manifest and indexes are here.
        root = write_pictures(tmp_path / "indexed", s1=f"{server.url}/others-00001.tar")
        data_sets = with_cache(open_data([str(root)], "train", 64), None, 0.1)
        assert not data_sets[0].whole
        here = reader_of(write_pictures(tmp_path / "here"))
        there = ShardReader(data_sets, 64)
        for shard, sample in ((0, 2), (1, 3), (1, 4)):
            mine = here.square(shard, sample, 64, 0, 1)
            assert there.square(shard, sample, 64, 0, 1)[0] == mine[0]
            assert np.array_equal(there.square(shard, sample, 64, 0, 1)[2], mine[2])
        assert server.asked == {"others-00001.tar": 1}


def test_a_manifest_at_a_url_is_read(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("PIX2PIX_CACHE", str(tmp_path))
    with ShardServer(pictures) as server:
        data_sets = with_cache(open_data([server.url], "train", 64), None, 0.1)
        name = ShardReader(data_sets, 64).name(1, 0)
        assert name == "others-00001.tar/sub/10000"
        with pytest.raises(UserError, match=r"127.0.0.1:\d+ has no split 'val' \(there: train\)"):
            open_data([server.url], "val", 64)
        with pytest.raises(UserError, match=r"manifest.json: HTTP status 404"):
            open_data([f"{server.url}/nowhere"], "train", 64)
    manifest = json.loads((pictures / "manifest.json").read_bytes())
    assert manifest["version"] == 2
