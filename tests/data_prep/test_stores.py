"""Promises of shards in stores, on real servers or the named substitutions of tests/stores.py."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.copy_shards import CopyShardsOptions, copy_shards
from data_prep.index_shards import IndexShardsOptions, index_shards
from data_prep.stores import list_store
from data_prep.verify_shards import VerifyShardsOptions, verify_shards
from pix2pix.data.shards import read_split
from pix2pix.errors import UserError
from tests.data_prep.test_copy_shards import code_of
from tests.others_shards import by_shard_writer
from tests.shard_runs import contents
from tests.stores import SCHEMES, Store, store_on_loopback

FIRST = "train-000000.tar"


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with store_on_loopback(monkeypatch, request.param) as store:
        yield store


def copy(source: object, target: object) -> None:
    assert copy_shards(CopyShardsOptions(source=str(source), target=str(target))) == 0


def test_shards_go_there_are_mended_there_verified_there_and_come_back(
    store: Store, tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = contents(tiny_shards)
    copy(tiny_shards, store.url)
    assert store.read(FIRST) == whole[FIRST]
    store.remove("manifest.json")  # as after a kill: it is the last file
    store.remove("train-000001.tar")
    store.write("train-000002.tar", whole["train-000002.tar"][:-1])  # cut short
    store.write(FIRST, bytes(len(whole[FIRST])))  # altered
    capfd.readouterr()
    copy(tiny_shards, store.url)
    told = capfd.readouterr()
    assert "4 were there already" in told.out
    assert told.err == ""  # no bar and no warning of a library
    copy(tiny_shards, store.url)
    assert "7 were there already" in capfd.readouterr().out
    assert read_split(store.url, "train").digest == read_split(tiny_shards, "train").digest
    assert verify_shards(VerifyShardsOptions(shards=store.url, num_workers=1)) == 0
    copy(store.url, tmp_path / "back")
    back = contents(tmp_path / "back")
    assert {name for name in whole if name.endswith((".tar", ".npz"))} <= back.keys()
    assert all(back[name] == whole[name] for name in back.keys() - {"README.md"})


def test_the_card_of_a_container_loads_it(
    tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_on_loopback(monkeypatch, "az") as store:
        copy(tiny_shards, store.url)
        code = code_of(store.read("README.md").decode())
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    assert len(told.stdout.splitlines()) == 24


def test_what_is_damaged_there_is_found(store: Store, tiny_shards: Path) -> None:
    copy(tiny_shards, store.url)
    data = bytearray(store.read(FIRST))
    data[2000] ^= 1
    store.write(FIRST, bytes(data))
    assert verify_shards(VerifyShardsOptions(shards=store.url, num_workers=1)) == 1


def test_tars_of_others_are_indexed_by_a_prefix_and_named_as_they_were_given(
    store: Store, tmp_path: Path
) -> None:
    others = by_shard_writer(tmp_path / "others")
    tars = sorted(others.glob("*.tar"))
    for tar in tars:
        store.write(tar.name, tar.read_bytes())
    urls = [f"{store.url}/{tar.name}" for tar in tars]
    assert sorted(list_store(f"{store.url}/*.tar")) == urls
    assert sorted(list_store(store.url)) == urls
    index_shards(
        IndexShardsOptions(
            shards=(f"{store.url}/{tars[0].name[:3]}",),
            out=tmp_path / "indexed",
            min_short_side=40,
            num_workers=1,
        )
    )
    (split,) = json.loads((tmp_path / "indexed/manifest.json").read_text())["splits"].values()
    assert [shard["url"] for shard in split["shards"]] == urls


def test_a_bucket_that_is_not_there_is_one_sentence(
    store: Store, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=f"cannot fetch {store.nowhere}/manifest.json: .*there is|it is not there"
    ):
        read_split(store.nowhere, "train")
    if store.url.startswith("hf"):  # a data set that is not there is made
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        with pytest.raises(UserError, match="HTTP status 401: credentials are") as caught:
            copy(tiny_shards, store.nowhere)
        assert "hf_of_nobody" not in str(caught.value)
        return
    with pytest.raises(UserError, match=f"cannot write to {store.nowhere}: it is not there"):
        copy(tiny_shards, store.nowhere)
