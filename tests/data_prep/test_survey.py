import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.survey import choose, choose_nearby, locate, measure, read_color, read_gray
from pix2pix.data.data_set import DataSet
from pix2pix.data.shards import open_split
from pix2pix.errors import UserError
from pix2pix.photos.photo import chroma_spread


def surveyed(root: Path, most: int = 100):
    split = open_split(root, "train")
    return measure(locate(DataSet(str(root), split), choose(split.sample_counts, most, 0)))


def test_all_are_chosen_where_there_are_no_more():
    assert choose([2, 0, 3], 100, seed=0) == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]


def test_the_choice_is_the_seeds_and_from_all_shards_alike():
    counts = [100] * 20
    chosen = choose(counts, 400, seed=1)
    assert chosen == choose(counts, 400, seed=1) == sorted(set(chosen))
    assert chosen != choose(counts, 400, seed=2)
    per_shard = Counter(shard for shard, _ in chosen)
    assert sorted(per_shard) == list(range(20))
    assert max(per_shard.values()) < 2 * 400 / 20
    assert max(index for _, index in chosen) < 100


def test_a_smaller_choice_is_some_of_a_larger_one():
    assert set(choose([50, 50], 10, seed=3)) < set(choose([50, 50], 40, seed=3))


def test_a_choice_nearby_is_from_a_few_shards():
    chosen = choose_nearby([50] * 40, 100, seed=3, most_shards=4)
    assert len(chosen) == 100
    assert len({shard for shard, _ in chosen}) == 4
    assert set(choose_nearby([50] * 40, 10, seed=3, most_shards=4)) < set(chosen)


def test_what_is_measured_is_what_the_shards_hold(tiny_shards):
    measured = surveyed(tiny_shards)
    assert len(measured) == 24
    for one in measured:
        with tarfile.open(one.sample.shard) as tar:
            metadata = json.load(tar.extractfile(f"{one.sample.key}.json"))
            color = Image.open(tar.extractfile(f"{one.sample.key}.color.jpg"))
            gray = Image.open(tar.extractfile(f"{one.sample.key}.gray.jpg"))
            assert one.source == metadata["source"]
            assert (one.photo_width, one.photo_height) == (90, 72)
            assert one.chroma == chroma_spread(color) > 4
            assert np.array_equal(np.asarray(read_color(one.sample)), np.asarray(color))
            assert np.array_equal(np.asarray(read_gray(one.sample)), np.asarray(gray))


@pytest.fixture
def shards(tiny_shards, tmp_path):
    for path in tiny_shards.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("kind", ["color", "metadata"])
def test_a_broken_sample_is_named(shards, kind):
    sample = surveyed(shards)[7].sample
    offset, _ = getattr(sample, kind)
    with sample.shard.open("r+b") as file:
        file.seek(offset)
        file.write(b"broken")
    with pytest.raises(UserError, match=f"broken sample {sample.name} in {shards}"):
        surveyed(shards)


def test_a_shard_with_other_samples_than_the_manifest_says_is_refused(shards):
    split = open_split(shards, "train")
    wrong = replace(split.shards[0], num_samples=split.shards[0].num_samples - 1)
    split = replace(split, shards=(wrong, *split.shards[1:]))
    with pytest.raises(UserError, match=r"train-000000.tar has 5 samples, the manifest says 4"):
        locate(DataSet(str(shards), split), [(0, 0)])
