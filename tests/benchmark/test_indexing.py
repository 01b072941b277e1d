"""The benchmark of indexing: every side is measured, on tars as real ones are."""

from pathlib import Path

import pytest

from data_prep.index_shards import IndexShardsOptions, index_shards
from pix2pix.benchmark import indexing
from pix2pix.data.shards import read_manifest
from tests.photographs import colorful, encoded

PICTURES = [encoded(colorful(400, 300, seed=seed)) for seed in range(3)]


def test_indexing_is_measured_beside_reading_and_decoding(tmp_path: Path) -> None:
    figures = indexing.indexing_figures(PICTURES, tmp_path, 1, 1, 0.05)
    ours, bound = figures["indexed_per_second"], figures["read_and_decode_bound_per_second"]
    assert figures["indexing_efficiency"] == pytest.approx(ours / bound)
    whole = figures["read_and_decode_whole_per_second"]
    assert figures["indexing_to_whole_decoding"] == pytest.approx(ours / whole)
    for name in ("indexing_cpu_efficiency", "indexing_cpu_to_whole_decoding"):
        assert figures[name] > 0


def test_the_pictures_of_a_measured_tar_are_no_copies(tmp_path: Path) -> None:
    tar = indexing._pack(PICTURES, tmp_path / "a.tar", 8)
    index_shards(IndexShardsOptions(shards=(str(tar),), out=tmp_path / "out", num_workers=1))
    split = read_manifest(tmp_path / "out").splits["train"]
    assert (split.num_samples, split.rejected) == (8, {})
