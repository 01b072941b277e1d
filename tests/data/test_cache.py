"""Promises of the cache: each shard once, whole or not at all, and never a secret or a hang."""

import contextlib
import json
import multiprocessing
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from filelock import FileLock

from pix2pix.data import fetch
from pix2pix.data.cache import ShardCache, cache_folder
from pix2pix.data.data_set import DataSet
from pix2pix.data.reader import ShardReader
from pix2pix.data.shards import Shard, open_split
from pix2pix.errors import UserError
from tests.data import shard_server
from tests.data.shard_server import ShardServer


@pytest.fixture
def server(tiny_shards: Path):
    with ShardServer(tiny_shards) as server:
        yield server


@pytest.fixture
def shard(tiny_shards: Path) -> Shard:
    return open_split(tiny_shards, "train").shards[0]


def get(server: ShardServer, folder: Path, shard: Shard) -> Path:
    return ShardCache(folder, 1).get(f"{server.url}/{shard.name}", shard)


def test_a_shard_comes_once_and_whole(server, shard, tiny_shards, tmp_path) -> None:
    for _ in range(2):
        path = get(server, tmp_path, shard)
        assert path.read_bytes() == (tiny_shards / shard.name).read_bytes()
    assert server.asked == {shard.name: 1}


def _get_in_process(url: str, folder: Path, shard: Shard, begin) -> None:
    begin.wait()
    ShardCache(folder, 1).get(url, shard)


def test_of_many_processes_one_fetches(server, shard, tmp_path) -> None:
    get(server, tmp_path / "before", shard)  # imports what is slow to import
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(4)
    arguments = (f"{server.url}/{shard.name}", tmp_path, shard, begin)
    processes = [context.Process(target=_get_in_process, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert server.asked == {shard.name: 2}


@pytest.mark.parametrize("fault", ["cut", "shorter", "flipped", "grown"])
def test_what_comes_wrong_once_comes_again(server, shard, tmp_path, fault) -> None:
    server.faults[shard.name].append(getattr(shard_server, fault))
    path = get(server, tmp_path, shard)
    assert sha256(path.read_bytes()).hexdigest() == shard.sha256
    assert server.asked == {shard.name: 2}


@pytest.mark.parametrize(
    ("fault", "cause", "requests"),
    [
        ("cut", "cut short", 3),
        ("shorter", "is cut short: ", 3),
        ("flipped", "was altered since its manifest", 3),
        ("grown", "has grown", 3),
        ("gone", "HTTP status 404: it is not there", 1),
        ("denied", "HTTP status 403: access is denied", 1),
    ],
)
def test_what_stays_wrong_is_one_sentence(server, shard, tmp_path, fault, cause, requests) -> None:
    server.faults[shard.name].extend([getattr(shard_server, fault)] * 9)
    with pytest.raises(UserError, match=cause) as caught:
        get(server, tmp_path, shard)
    assert f"{server.url}/{shard.name}" in str(caught.value)
    assert server.asked == {shard.name: requests}
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}
    server.faults[shard.name].clear()
    assert get(server, tmp_path, shard).stat().st_size == shard.bytes  # once it is mended


def test_a_server_that_falls_silent_does_not_hang(server, shard, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fetch, "SILENT_SECONDS", 1)
    monkeypatch.setattr(fetch, "RETRIES", 0)
    server.faults[shard.name].append(shard_server.silent)
    with pytest.raises(UserError, match="does not answer, or has fallen silent"):
        get(server, tmp_path, shard)


def test_a_host_that_is_none_is_named(shard, tmp_path) -> None:
    with ShardServer(tmp_path) as server:
        url = f"{server.url}/a.tar"  # and nobody listens there from here on
    with pytest.raises(UserError, match=r"cannot fetch http://127.0.0.1:\d+/a.tar: the host refus"):
        ShardCache(tmp_path, 1).get(url, shard)


def test_a_query_comes_from_the_environment_and_is_never_told(
    server, shard, tmp_path, monkeypatch, capfd
) -> None:
    monkeypatch.setenv("PIX2PIX_URL_QUERY", "sig=secret&x=a+b")
    monkeypatch.setenv("GOPEN_VERBOSE", "1")
    get(server, tmp_path, shard)
    assert server.queries == {"sig=secret&x=a+b"}
    server.faults["b.tar"].append(shard_server.gone)
    with pytest.raises(UserError) as caught:
        ShardCache(tmp_path / "other", 1).get(f"{server.url}/b.tar", shard)
    assert "secret" not in str(caught.value) + "".join(capfd.readouterr())


def test_a_file_is_copied_alike(tiny_shards, shard, tmp_path) -> None:
    path = ShardCache(tmp_path, 1).get(str(tiny_shards / shard.name), shard)
    assert path.read_bytes() == (tiny_shards / shard.name).read_bytes()
    with pytest.raises(UserError, match=r"cannot read .*absent.tar: it is not there"):
        ShardCache(tmp_path / "other", 1).get(str(tiny_shards / "absent.tar"), shard)


def test_what_a_killed_process_left_is_removed(server, shard, tmp_path) -> None:
    left = tmp_path / f".{shard.sha256}.tar.{'0' * 32}.tmp"
    left.write_bytes(b"half")
    get(server, tmp_path, shard)
    assert not left.exists()


def test_a_full_cache_and_one_that_is_read_only_are_named(
    server, shard, tmp_path, monkeypatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"the cache .*file/x cannot be written.*--shards_cache"):
        ShardCache(tmp_path / "file" / "x", 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pix2pix.data.cache.flush", full)
    with pytest.raises(UserError, match="it is full; make room"):
        get(server, tmp_path, shard)
    assert list(tmp_path.glob("*.tar")) == []


def test_a_file_system_without_locks_does(server, shard, tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("pix2pix.data.cache.FileLock.acquire", refuse)
    assert get(server, tmp_path, shard).stat().st_size == shard.bytes


def test_the_folder_is_the_nodes_and_never_the_home(monkeypatch, tmp_path) -> None:
    for name in ("PIX2PIX_CACHE", "SLURM_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert Path.home() not in cache_folder(None).parents
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job"))
    assert cache_folder(None).parent == tmp_path / "job"
    assert cache_folder("$SLURM_TMPDIR/shards") == tmp_path / "job" / "shards"
    monkeypatch.setenv("PIX2PIX_CACHE", str(tmp_path / "mine"))
    assert cache_folder(None).parent == tmp_path / "mine"
    with pytest.raises(UserError, match=r"\$NO_SUCH/x: this node has no such variable"):
        cache_folder("$NO_SUCH/x")


@pytest.mark.parametrize("room", [1, 2])
def test_a_reader_that_fetches_by_itself_keeps_the_limit(server, tiny_shards, tmp_path, room):
    split = open_split(tiny_shards, "train")
    most = max(shard.bytes for shard in split.shards)
    cache = ShardCache(tmp_path, (room + 0.5) * most / 2**30)
    used = split.shards[0]
    cache.get(f"{server.url}/{used.name}", used)
    with in_use(cache, used):
        reader = ShardReader([DataSet(server.url, split, cache=cache)], 64)
        for shard in range(1, len(split.shards)):
            reader.square(shard, 0, 64, 0.5, 0.5)
            there = [shard for shard in split.shards if cache.has(shard)]
            assert split.shards[shard] in there
            assert used in there  # a live training says that it needs it
            assert len(there) <= max(room, 2)
        assert cache.has(split.shards[-1])
    again = ShardReader([DataSet(server.url, split, cache=cache)], 64)  # it has none open
    for shard in (1, 2):  # nobody says so any more
        again.square(shard, 0, 64, 0.5, 0.5)
    assert not cache.has(used)
    assert len([shard for shard in split.shards if cache.has(shard)]) == room


@contextlib.contextmanager
def in_use(cache: ShardCache, shard: Shard):
    """Another training, which says that it uses the shard."""
    (cache.folder / "needs-x.json").write_text(json.dumps([cache.path(shard).name]))
    with FileLock(cache.folder / "needs-x.lock"):
        yield


def test_a_shard_that_leaves_before_it_is_opened_is_fetched_again(
    server, tiny_shards, tmp_path, monkeypatch
):
    split = open_split(tiny_shards, "train")
    cache = ShardCache(tmp_path, 1)
    get_it = ShardCache.get
    left = [split.shards[0].sha256] * 2

    def and_leave(self, place, shard):
        path = get_it(self, place, shard)
        if left:
            left.pop()
            path.unlink()
        return path

    monkeypatch.setattr(ShardCache, "get", and_leave)
    reader = ShardReader([DataSet(server.url, split, cache=cache)], 64)
    assert reader.square(0, 0, 64, 0.5, 0.5)[0].startswith("train-000000.tar/")
    left += [split.shards[1].sha256] * 99
    with pytest.raises(UserError, match=r"is too small: .*raise --shards_cache_gib"):
        reader.square(1, 0, 64, 0.5, 0.5)


def test_by_default_it_may_take_most_of_what_is_free(tmp_path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert 0.7 * free < ShardCache(tmp_path).most_bytes < 0.9 * free
