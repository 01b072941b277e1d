"""The loader's benchmark: every side is measured, and the bounds do what they are to bound."""

from pathlib import Path

import numpy as np
import pytest

from pix2pix.benchmark import loader, loader_indexed, loader_ranks, loader_remote
from pix2pix.benchmark.options import LoaderOptions
from pix2pix.errors import UserError
from pix2pix.photos.resize import open_square, resize
from tests.photographs import colorful, encoded, write_folder


def test_the_loader_benchmark_reads_photographs_from_everywhere_and_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    photos = write_folder(tmp_path / "photos", 6, width=400, height=300)
    options = LoaderOptions(photos=photos, num_workers=1, batch_size=2, num_batches=8, rounds=1)
    remote = loader_remote.remote_figures(options, num_photos=32)
    figures = {**loader.measure(options), **remote}
    assert said_of_others(capfd) == []
    ours, bound = figures["samples_per_second"], figures["decode_bound_samples_per_second"]
    assert figures["efficiency"] == pytest.approx(ours / bound)
    assert figures["speedup"] == pytest.approx(ours / figures["classic_samples_per_second"])
    assert figures["cached_efficiency"] == pytest.approx(
        figures["cached_samples_per_second"] / ours
    )
    bound = figures["indexed_bound_samples_per_second"]
    indexed = figures["indexed_samples_per_second"]
    assert figures["indexed_efficiency"] == pytest.approx(indexed / bound)
    assert figures["fetch_cpu_seconds_per_gb"] > 0
    assert figures["decode_cpu_seconds_per_gb"] > 0
    for side in ("waited_from_folder_percent", "waited_over_http_percent"):
        assert 0 <= figures[side] < 100


def test_the_decoder_that_bounds_pictures_of_others_makes_their_square(monkeypatch):
    file = encoded(colorful(640, 480))
    made = []
    monkeypatch.setattr(loader_indexed, "resize", lambda *args: made.append(resize(*args)))
    loader_indexed.decode_square(file, 96, 86)
    _, color = open_square(file, 96, 86, 0.5, 0.5)
    assert np.array_equal(np.asarray(made[0]), color)


def said_of_others(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Lines that are no progress of the benchmark itself (one is printed every 30 s)."""
    told = capfd.readouterr()
    lines = (told.out + told.err).splitlines()
    return [line for line in lines if not line.startswith(("loader: ", "over HTTP: "))]


def test_a_worker_of_one_of_many_ranks_is_simulated(capfd: pytest.CaptureFixture[str]):
    changes = {"simulate_shards": 20, "batch_size": 4, "num_batches": 2, "rounds": 1}
    figures = loader_ranks.simulate(LoaderOptions(simulate_ranks=(1, 4), **changes))
    assert said_of_others(capfd) == []
    assert figures["ranks_1_share"] == 1
    assert figures["ranks_4_samples_per_second"] > 0
    with pytest.raises(UserError, match="--simulate_ranks: give numbers from 1 on"):
        LoaderOptions(simulate_ranks=(0,))
