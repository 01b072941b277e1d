"""Trainings on shards that lie elsewhere: the same bits as from a folder, whatever happens."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.data import shard_server
from tests.data.shard_server import ShardServer
from tests.ranks import run_ranks
from tests.s3_server import ENVIRONMENT, file_system, s3_server
from tests.small_training import fit, tensor_digests, tiny_config, trainer_of
from tests.stores import store_on_loopback, use


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


@pytest.fixture
def bucket(tiny_shards, monkeypatch):
    """A bucket of a real S3 server, with the shards; the environment that finds it."""
    with s3_server(monkeypatch, "photos") as environment:
        file_system().put(f"{tiny_shards}/", "photos/shards/", recursive=True)
        yield {name: environment[name] for name in (*ENVIRONMENT, "AWS_ENDPOINT_URL")}


def fit_there(environment, config, killed_in=None):
    """`fit` with more environment; every rank dies of a SIGKILL in step number `killed_in`."""
    use(environment)
    if killed_in is None:
        return fit(config)
    trainer = trainer_of(config)
    step = trainer.step

    def deadly(micro_batches):
        if trainer.state.step + 1 == killed_in:
            trainer.checkpointer.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(micro_batches)

    trainer.step = deadly
    return trainer.fit()


def from_bucket(tmp_path, **changes):
    values = {"shards_cache": str(tmp_path / "cache"), **changes}
    return tiny_config("s3://photos/shards", tmp_path / "run", **values)


@pytest.mark.parametrize("ranks", [1, 2])
def test_over_s3_a_training_has_the_bits_of_the_folder(bucket, tmp_path, from_folder, ranks):
    found = run_ranks(fit_there, ranks, bucket, from_bucket(tmp_path))[0]
    assert found["keys"] == from_folder[ranks]["keys"]
    assert found["digests"] == from_folder[ranks]["digests"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_over_s3_a_killed_training_goes_on_to_the_bits_of_the_folder(
    bucket, tmp_path, from_folder, ranks
):
    config = from_bucket(tmp_path, checkpoint_every=1)
    with pytest.raises(AssertionError, match="died without a word"):
        run_ranks(fit_there, ranks, bucket, config, 3)
    found = run_ranks(fit_there, ranks, bucket, config)[0]
    assert (found["first_step"], found["step"]) == (2, 4)
    assert found["digests"] == from_folder[ranks]["digests"]


@pytest.mark.parametrize("scheme", ["gs", "az", "hf"])
def test_a_killed_training_goes_on_on_another_node_from_any_store(
    scheme, tiny_shards, tmp_path, from_folder, monkeypatch
):
    with store_on_loopback(monkeypatch, scheme) as store:
        for path in tiny_shards.iterdir():
            store.write(path.name, path.read_bytes())
        config = tiny_config(
            store.url, tmp_path / "run", checkpoint_every=1, shards_cache=str(tmp_path / "cache")
        )
        with pytest.raises(AssertionError, match="died without a word"):
            run_ranks(fit_there, 1, store.environment, config, 3)
        config = replace(config, shards_cache=str(tmp_path / "other"))
        found = run_ranks(fit_there, 1, store.environment, config)[0]
    assert (found["first_step"], found["step"]) == (2, 4)
    assert found["digests"] == from_folder[1]["digests"]
    for path in (tmp_path / "run").rglob("*"):
        for secret in store.environment.values():
            assert not path.is_file() or secret.encode() not in path.read_bytes()


def fit_beside(config, meetings, is_first):
    """`fit`, but before each step it meets the other training: the two live at the same time.

    meetings: a named pipe; to open it for reading waits for who opens it for writing.
    """
    trainer = trainer_of(config)
    step = trainer.step

    def together(micro_batches):
        os.close(os.open(meetings, os.O_RDONLY if is_first else os.O_WRONLY))
        return step(micro_batches)

    trainer.step = together
    trainer.fit()
    digests = tensor_digests({"state": trainer.state.state_dict()})
    trainer.distributed.shutdown()
    return trainer.state.step, digests


@pytest.mark.parametrize("room", [100, 3.5])
def test_two_live_trainings_share_a_cache(server, tmp_path, tiny_shards, room):
    """With room for all, a shard is fetched once for both; with less, neither takes the other's."""
    size = max(path.stat().st_size for path in tiny_shards.glob("*.tar"))
    cache = {"shards_cache": str(tmp_path / "cache"), "shards_cache_gib": room * size / 2**30}
    os.mkfifo(tmp_path / "meetings")
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(
                run_ranks,
                fit_beside,
                1,
                tiny_config(server.url, tmp_path / str(seed), seed=seed, total_steps=8, **cache),
                str(tmp_path / "meetings"),
                seed == 0,
            )
            for seed in (0, 1)
        ]
        found = [run.result()[0] for run in runs]
    for seed, (step, digests) in enumerate(found):
        config = tiny_config(tiny_shards, tmp_path / f"folder{seed}", seed=seed, total_steps=8)
        assert step == 8
        assert digests == run_ranks(fit, 1, config)[0]["digests"]
    if room == 100:
        assert set(server.tars.values()) == {1}
    assert list((tmp_path / "cache").glob("needs-*")) == []
