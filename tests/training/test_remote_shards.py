"""Trainings on shards that lie elsewhere: the same bits as from a folder, whatever happens."""

import json
import os

import pytest

from tests.data import shard_server
from tests.data.shard_server import ShardServer
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config


@pytest.fixture(scope="module")
def from_folder(tiny_shards, tmp_path_factory):
    """What a training from the folder ends with, by number of ranks."""
    folder = tmp_path_factory.mktemp("folder")
    return {
        ranks: run_ranks(fit, ranks, tiny_config(tiny_shards, folder / str(ranks)))[0]
        for ranks in (1, 2)
    }


@pytest.fixture
def server(tiny_shards):
    with ShardServer(tiny_shards) as server:
        yield server


def remote(server, tmp_path, **changes):
    values = {"shards_cache": str(tmp_path / "cache"), **changes}
    return tiny_config(server.url, tmp_path / "run", **values)


@pytest.mark.parametrize("ranks", [1, 2])
def test_over_http_a_training_has_the_bits_of_the_folder(server, tmp_path, from_folder, ranks):
    found = run_ranks(fit, ranks, remote(server, tmp_path, num_workers=1))[0]
    assert found["keys"] == from_folder[ranks]["keys"]
    assert found["digests"] == from_folder[ranks]["digests"]
    assert set(server.tars.values()) == {1}  # of one node


def test_a_run_moves_from_a_url_to_a_folder_and_back(server, tmp_path, tiny_shards, from_folder):
    config = remote(server, tmp_path)
    run_ranks(fit, 1, config, 1)
    run_ranks(fit, 1, tiny_config(tiny_shards, tmp_path / "run"), 2)
    found = run_ranks(fit, 1, config)[0]
    assert found["first_step"] > 1
    assert found["digests"] == from_folder[1]["digests"]
    assert set(server.tars.values()) == {1}  # the cache was kept


def test_a_folder_is_cached_where_that_is_asked_for(tiny_shards, tmp_path, from_folder):
    config = tiny_config(tiny_shards, tmp_path / "run", shards_cache=str(tmp_path / "cache"))
    assert run_ranks(fit, 1, config)[0]["digests"] == from_folder[1]["digests"]
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(list(tiny_shards.glob("*.tar")))


def test_a_set_larger_than_the_cache_trains_alike(server, tmp_path, from_folder, tiny_shards):
    size = max(path.stat().st_size for path in tiny_shards.glob("*.tar"))
    config = remote(server, tmp_path, shards_cache_gib=3.5 * size / 2**30)
    assert run_ranks(fit, 1, config)[0]["digests"] == from_folder[1]["digests"]


@pytest.mark.parametrize("fault", ["gone", "flipped"])
def test_a_shard_that_cannot_be_had_is_one_error_on_every_rank(server, tmp_path, fault):
    name = "train-000002.tar"
    server.faults[name].extend([getattr(shard_server, fault)] * 99)
    with pytest.raises(AssertionError, match=f"UserError: .*{server.url}/{name}") as caught:
        run_ranks(fit, 2, remote(server, tmp_path))
    for rank in (0, 1):
        assert f"rank {rank} failed" in str(caught.value)
    server.faults.clear()
    assert run_ranks(fit, 2, remote(server, tmp_path))[0]["step"] == 4  # once it is mended


def fit_with_secret(config):
    os.environ["PIX2PIX_URL_QUERY"] = "sig=h5h5"
    return fit(config)


def test_no_secret_comes_into_the_run_directory(server, tmp_path):
    run_ranks(fit_with_secret, 1, remote(server, tmp_path))
    assert server.queries == {"sig=h5h5"}
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["config"]["shards"] == [server.url]
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"h5h5" not in path.read_bytes()
