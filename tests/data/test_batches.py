"""Promises of the batches: the right photographs, crop alike, for any ranks and workers."""

import pickle
from itertools import chain

import numpy as np
import pytest
import torch

from pix2pix.data.batches import (
    Batch,
    EvaluationBatches,
    TrainMicroBatches,
    resize,
    training_view,
)
from pix2pix.data.data_set import DataSet, open_data
from pix2pix.data.index import index_shard
from pix2pix.data.preflight import check_image_size, crop_size
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.model.color import ColorSpace
from tests.small_training import tiny_config


@pytest.fixture
def reader(tiny_shards):
    return ShardReader(open_data([str(tiny_shards)], "train", 64), 64)


def micro_batches_of(reader, tmp_path, rank=0, world_size=1, **changes):
    config = tiny_config(reader.data_sets[0].root, tmp_path, **changes)
    return TrainMicroBatches(reader, config, rank, world_size)


@pytest.mark.parametrize(("world_size", "num_micro_batches"), [(2, 1), (3, 2), (6, 1)])
def test_ranks_and_micro_batches_divide_the_same_global_batch(
    reader, tmp_path, world_size, num_micro_batches
):
    whole = micro_batches_of(reader, tmp_path)
    for step in (0, 3, 4):
        drawn = [
            micro_batches_of(
                reader, tmp_path, rank, world_size, grad_accumulation_steps=num_micro_batches
            )[step * num_micro_batches + micro_batch]
            for rank in range(world_size)
            for micro_batch in range(num_micro_batches)
        ]
        assert tuple(chain.from_iterable(batch.keys for batch in drawn)) == whole[step].keys
        assert torch.equal(torch.cat([batch.color for batch in drawn]), whole[step].color)
        assert torch.equal(torch.cat([batch.flip for batch in drawn]), whole[step].flip)


def test_a_batch_opens_its_indexes_one_after_the_other(reader, tmp_path, monkeypatch):
    """Between pictures each would take twice as long: decoding empties the processor's caches."""
    events = []
    index, pair = DataSet.index, ShardReader._pair
    monkeypatch.setattr(DataSet, "index", lambda *args: events.append("index") or index(*args))
    monkeypatch.setattr(ShardReader, "_pair", lambda *args: events.append("pair") or pair(*args))
    assert micro_batches_of(reader, tmp_path)[0].broken is None
    assert events.index("pair") == events.count("index") > 1


def test_gray_and_color_are_cut_and_mirrored_alike(reader, tmp_path):
    batch = micro_batches_of(reader, tmp_path)[0]
    assert batch.gray.shape == (6, 1, 64, 64)
    assert batch.color.shape == (6, 3, 64, 64)
    assert batch.color.is_contiguous(memory_format=torch.channels_last)
    assert len(set(batch.flip.tolist())) == 2
    condition, target = training_view(batch, ColorSpace("rgb"), 64)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # Rec. 601
    luma = (target * weights).sum(dim=1, keepdim=True)
    assert (luma - condition).abs().mean() < 0.02  # two JPEGs of one picture, range 2
    assert (luma.flip(-1) - condition).abs().mean() > 0.1


def test_a_sample_is_cut_anew_in_every_epoch_and_the_same_in_every_run(reader, tmp_path):
    micro_batches = micro_batches_of(reader, tmp_path, global_batch=24)
    first, again, second = (
        micro_batches[0],
        micro_batches_of(reader, tmp_path, global_batch=24)[0],
        micro_batches[1],
    )
    assert torch.equal(first.color, again.color)
    assert sorted(first.keys) == sorted(second.keys)
    places = {key: row for row, key in enumerate(second.keys)}
    other = [
        not torch.equal(first.color[row], second.color[places[key]])
        for row, key in enumerate(first.keys)
    ]
    assert sum(other) > 20
    flips = [first.flip[row] != second.flip[places[key]] for row, key in enumerate(first.keys)]
    assert 2 < sum(map(bool, flips)) < 22


def test_crops_reach_every_edge(reader, tmp_path):
    micro_batches = micro_batches_of(reader, tmp_path, global_batch=24)
    crops = [crop for number in range(40) for crop in micro_batches.crops(number)]
    tops, lefts, flips = np.array([(crop.top, crop.left, crop.flip) for crop in crops]).T
    for values in (tops, lefts):
        assert values.min() < 0.02
        assert values.max() > 0.98
    assert 0.4 < (flips >= 0.5).mean() < 0.6


def test_evaluation_cuts_the_center_square_in_manifest_order(reader):
    batches = EvaluationBatches(reader, rank=0, world_size=1, batch_size=10)
    assert len(batches) == 3
    keys = list(chain.from_iterable(batches[n].keys for n in range(3)))
    assert keys == [
        f"{shard.name}/{key}"
        for shard in reader.data_sets[0].split.shards
        for key in index_shard(reader.data_sets[0].tar(shard)).names
    ]
    _, _, color = reader.square(0, 0, 72, 0.5, 0.5)
    assert np.array_equal(batches[0].color[0].permute(1, 2, 0), color)
    assert not batches[0].flip.any()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("of", [None, [0, 3, 4, 7, 11, 23]])
def test_evaluation_sees_every_sample_once_without_padding(reader, world_size, of):
    of = None if of is None else np.array(of)
    seen = []
    for rank in range(world_size):
        batches = EvaluationBatches(reader, rank, world_size, 4, of)
        keys = list(chain.from_iterable(batches[n].keys for n in range(len(batches))))
        assert len(keys) == len(batches.positions)
        seen += zip(batches.positions.tolist(), keys, strict=True)
    alone = EvaluationBatches(reader, 0, 1, 24, of)
    assert sorted(seen) == list(zip(alone.positions.tolist(), alone[0].keys, strict=True))
    assert len(seen) == (24 if of is None else len(of))


def test_resize_is_an_area_average_for_whole_factors_and_nothing_for_its_own_size():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert resize(pixels, 8) is pixels
    flat = torch.full((1, 1, 64, 64), 77, dtype=torch.uint8)
    assert torch.equal(resize(flat, 16), flat[..., :16, :16])
    assert resize(pixels, 4).dtype == torch.uint8


def test_training_crop_is_the_published_share_of_the_short_side():
    assert crop_size(286) == 256
    assert crop_size(143) == 128
    assert crop_size(572) == 512


def test_an_image_size_larger_than_the_shards_is_an_error_that_says_which_shards(reader):
    check_image_size(reader.data_sets[0].split, 64)
    with pytest.raises(UserError, match="--short_side 143"):
        check_image_size(reader.data_sets[0].split, 128)


def test_a_reader_can_be_sent_to_another_process(reader):
    reader.square(0, 0, 64, 0, 0)
    name, _, color = pickle.loads(pickle.dumps(reader)).square(1, 2, 64, 0, 1)
    expected = reader.square(1, 2, 64, 0, 1)
    assert name == expected[0]
    assert np.array_equal(color, expected[2])


def test_blank_batch_has_the_shape_of_a_real_one(reader, tmp_path):
    real, blank = micro_batches_of(reader, tmp_path)[0], Batch.blank(6, 64)
    for name in ("gray", "color", "flip"):
        a, b = getattr(real, name), getattr(blank, name)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
    assert len(blank.keys) == 6
