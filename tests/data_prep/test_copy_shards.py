import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.copy_shards import CopyShardsOptions, copy_shards
from data_prep.index_shards import IndexShardsOptions, index_shards
from data_prep.verify_shards import VerifyShardsOptions, verify_shards
from pix2pix.data.shards import read_split
from pix2pix.errors import UserError
from tests.data import shard_server
from tests.data.shard_server import ShardServer
from tests.hub_server import HubServer
from tests.others_shards import by_shard_writer
from tests.s3_server import file_system, s3_server
from tests.shard_runs import contents
from tests.web_server import WebServer

FIRST = "train-000000.tar"


def copy(source: object, target: object, **changes) -> None:
    options = CopyShardsOptions(source=str(source), target=str(target), **changes)
    assert copy_shards(options) == 0


def without_sidecars(folder: Path) -> dict[str, bytes]:
    files = contents(folder)
    return {n: data for n, data in files.items() if n == "manifest.json" or ".json" not in n}


def code_of(card: str) -> str:
    return card.partition("```python\n")[2].partition("```")[0]


def test_a_folder_is_copied_with_a_card_that_loads_it_by_plain_webdataset(
    clean_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    copy(clean_run, out)
    copied = contents(out)
    card = copied.pop("README.md").decode()
    assert copied == without_sidecars(clean_run) | {
        "rejected.jsonl": (clean_run / "rejected.jsonl").read_bytes()
    }
    assert verify_shards(VerifyShardsOptions(shards=str(out), num_workers=1)) == 0
    assert "| train | 23 | 6 |" in card
    assert "| not known | 23 |" in card
    told = subprocess.run(
        [sys.executable, "-c", code_of(card)], capture_output=True, text=True, check=True
    )
    assert len(told.stdout.splitlines()) == 23


def test_the_card_counts_licenses(clean_run: Path, tmp_path: Path) -> None:
    from data_prep.licenses import license_terms

    assert license_terms(b'{"license": {"id": 4, "name": "CC BY", "url": "u"}}')[0] == "CC BY"
    assert license_terms(b'{"licence": {"id": 4}}') == ["4"]  # of shards made earlier
    assert license_terms(b'{"LICENSE": "cc0"}') == ["cc0"]
    assert license_terms(b"{}") == license_terms(b"no json") == license_terms(b"[1]") == []


def test_a_copy_that_was_cut_off_goes_on_with_what_is_not_there(
    clean_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    copy(clean_run, out)
    whole = contents(out)
    for name in ("manifest.json", "train-000001.tar", "train-000002.tar"):
        (out / name).unlink()
    (out / "train-000003.tar").write_bytes(whole["train-000003.tar"][:-1])  # cut short
    altered = bytearray(whole["train-000004.tar"])
    altered[600] ^= 1
    (out / "train-000004.tar").write_bytes(altered)
    (out / ".train-000001.tar.4711.tmp").write_bytes(b"half")
    kept = (out / FIRST).stat().st_mtime_ns
    capsys.readouterr()
    copy(clean_run, out)
    assert contents(out) == whole
    assert (out / FIRST).stat().st_mtime_ns == kept
    assert "2 were there already" in capsys.readouterr().out


def test_damaged_shards_are_not_copied(clean_run: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(clean_run, tmp_path / "damaged")
    data = bytearray((damaged / FIRST).read_bytes())
    data[600] ^= 1
    (damaged / FIRST).write_bytes(data)
    with pytest.raises(UserError, match=f"{FIRST} was altered"):
        copy(damaged, tmp_path / "out")
    (damaged / FIRST).unlink()
    with pytest.raises(UserError, match=f"{FIRST} is missing"):
        copy(damaged, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


def test_other_shards_are_not_overwritten(clean_run: Path, tiny_shards: Path, tmp_path: Path):
    copy(clean_run, tmp_path / "out")
    with pytest.raises(UserError, match="holds other shards: its split 'train' is of other"):
        copy(tiny_shards, tmp_path / "out")
    with pytest.raises(UserError, match="are one folder"):
        copy(clean_run, clean_run)
    with pytest.raises(UserError, match="a web server takes no files"):
        copy(clean_run, "https://host/folder")


def test_indexed_shards_are_gathered_beside_their_manifest(tmp_path: Path) -> None:
    others = by_shard_writer(tmp_path / "others")
    options = IndexShardsOptions(
        shards=(str(others),), out=tmp_path / "index", min_short_side=40, num_workers=1
    )
    index_shards(options)
    copy(tmp_path / "index", tmp_path / "out")
    before, after = (read_split(tmp_path / name, "train") for name in ("index", "out"))
    assert before.digest == after.digest
    shutil.rmtree(others)
    for shard in after.shards:
        assert shard.url is None
        assert (tmp_path / "out" / shard.name).stat().st_size == shard.bytes


def test_shards_go_to_a_bucket_and_come_back(
    clean_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with s3_server(monkeypatch, "bucket"):
        copy(clean_run, "s3://bucket/some/shards")
        store = file_system()
        assert store.size(f"bucket/some/shards/{FIRST}") == (clean_run / FIRST).stat().st_size
        store.rm("bucket/some/shards/manifest.json")
        store.rm("bucket/some/shards/train-000001.tar")
        store.pipe(f"bucket/some/shards/{FIRST}", bytes((clean_run / FIRST).stat().st_size))
        capsys.readouterr()
        copy(clean_run, "s3://bucket/some/shards")
        assert "4 were there already" in capsys.readouterr().out
        copy("s3://bucket/some/shards", tmp_path / "back")
        with pytest.raises(UserError, match=r"cannot .* s3://no-bucket"):
            copy(clean_run, "s3://no-bucket/shards")
    back = contents(tmp_path / "back")
    card = back.pop("README.md").decode()
    assert "pipe:aws s3 cp s3://bucket/some/shards/train-{000000..000005}.tar -" in card
    assert back == {**without_sidecars(clean_run), "rejected.jsonl": back["rejected.jsonl"]}


def test_shards_come_from_a_web_server(clean_run: Path, tmp_path: Path) -> None:
    with WebServer() as server:
        server.files = {f"/{name}": data for name, data in contents(clean_run).items()}
        copy(server.url, tmp_path / "out")
        del server.files[f"/{FIRST}"]
        with pytest.raises(UserError, match=f"{FIRST}.*404"):
            copy(server.url, tmp_path / "other")
    assert without_sidecars(clean_run).items() <= contents(tmp_path / "out").items()
    assert not (tmp_path / "other/manifest.json").exists()


@pytest.mark.parametrize("name", ["train-000001.index.npz", "rejected.jsonl", "README.md"])
def test_what_readers_can_do_without_is_left_out_only_where_it_is_not_there(
    clean_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = shutil.copytree(clean_run, tmp_path / "source")
    (source / "README.md").write_text("card")
    with ShardServer(source) as server:
        server.faults[name].extend([shard_server.denied] * 9)
        with pytest.raises(UserError, match=f"{name}: HTTP status 403"):
            copy(server.url, tmp_path / "out")
        assert not (tmp_path / "out/manifest.json").exists()
        server.faults[name].clear()
        (source / name).unlink()
        copy(server.url, tmp_path / "out")
    assert (f"has no {name}: readers do without" in capsys.readouterr().out) == (
        name != "README.md"
    )
    assert (tmp_path / "out" / name).exists() == (name == "README.md")  # a card is made
    assert verify_shards(VerifyShardsOptions(shards=str(tmp_path / "out"), num_workers=1)) == 0


def test_shards_go_to_the_hub_with_the_manifest_in_the_last_commit(
    clean_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        copy(clean_run, "hf://datasets/me/photos")
        (files,) = server.models.values()
    names = [*files]
    assert names[-2:] == ["README.md", "manifest.json"]
    assert files[FIRST] == (clean_run / FIRST).read_bytes()
    assert "huggingface.co/datasets/me/photos/resolve/main/" in files["README.md"].decode()
    with pytest.raises(UserError, match="hf://datasets/OWNER/NAME"):
        copy(clean_run, "hf://me/photos")
    assert os.environ["HF_TOKEN"] not in "".join(server.asked)
