import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.index_shards import IndexShardsOptions, index_shards
from data_prep.verify_shards import VerifyShardsOptions, verify_shards
from pix2pix.data.index import index_path, index_shard, read_index
from pix2pix.errors import UserError
from tests.data import shard_server
from tests.data.shard_server import ShardServer
from tests.others_shards import by_shard_writer
from tests.photographs import colorful, encoded
from tests.shard_runs import ENVIRONMENT, as_earlier_version, contents, plans_for, write
from tests.web_server import WebServer

FIRST = "train-000000.tar"
SECOND = "train-000001.tar"


@pytest.fixture(scope="module")
def sound(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train in 4 shards and val, which was cut off from it, in 2."""
    out = tmp_path_factory.mktemp("sound")
    write(plans_for(photos, out, val_fraction=0.25))
    return out


@pytest.fixture
def shards(sound: Path, tmp_path: Path) -> Path:
    """A copy of `sound` to damage."""
    return shutil.copytree(sound, tmp_path / "shards")


def verify(folder: Path, **changes) -> int:
    return verify_shards(VerifyShardsOptions(shards=str(folder), **{"num_workers": 1} | changes))


def flip(path: Path, offset: int, bit: int = 0x10) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


def replace_member(path: Path, number: int, data: bytes, name: str = "") -> None:
    """Another content, and name, for one member; the manifest's size and sum do not follow."""
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar.getmembers()]
    members[number] = (name or members[number][0], data)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member_name, content in members:
            info = tarfile.TarInfo(member_name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def edit_manifest(folder: Path, edit: Callable[[dict], object]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    edit(content["splits"])
    path.write_text(json.dumps(content))


def trust(folder: Path, name: str) -> None:
    """Let the manifest say the size of the shard `name` as it is: what else is wrong shows then."""
    size = (folder / name).stat().st_size
    edit_manifest(folder, lambda splits: entry(splits, name).update(bytes=size))


def entry(splits: dict, name: str) -> dict:
    (shard,) = (s for split in splits.values() for s in split["shards"] if s["name"] == name)
    return shard


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_sound_shards_are_sound(
    sound: Path, capsys: pytest.CaptureFixture[str], quick: bool, num_workers: int
) -> None:
    assert verify(sound, quick=quick, num_workers=num_workers) == 0
    told = capsys.readouterr().out
    assert "train: " in told
    assert "val: " in told
    assert f"{sound} is sound" in told
    assert ("every sum and picture is right" in told) is not quick


def key_at(folder: Path, name: str, index: int) -> str:
    return index_shard(folder / name).key(index)


def test_every_kind_of_damage_is_told(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = index_shard(shards / FIRST)
    middle = sum(index.place("color", 1)) - 100  # of entropy-coded data: decodes, but otherwise
    flip(shards / FIRST, middle)
    with (shards / SECOND).open("r+b") as file:
        file.truncate(2000)
    (shards / "train-000002.tar").unlink()
    assert verify(shards) == 1
    told = capsys.readouterr().out
    assert f"{FIRST}: bits have changed" in told
    assert f"{SECOND}: 2,000 bytes, not " in told
    assert "train-000002.tar: is missing" in told
    assert f"{shards} is damaged: 3 faults in 3 shards" in told
    for name in (FIRST, SECOND, "train-000002.tar"):
        tar = shards / name
        assert f"    rm -f {tar} {tar.with_suffix('.json')}\n" in told


@pytest.mark.parametrize("offset", [3, 130, 258], ids=["name", "size", "magic"])
def test_flipped_bits_in_a_header_are_told(
    shards: Path, capsys: pytest.CaptureFixture[str], offset: int
) -> None:
    start = index_shard(shards / FIRST).place("gray", 1)[0] - 512
    flip(shards / FIRST, start + offset, bit=0x01)
    assert verify(shards) == 1
    told = capsys.readouterr().out
    assert f"{FIRST}: bits have changed" in told
    assert verify(shards, quick=True) == 1
    told = capsys.readouterr().out
    assert "bits have changed" not in told
    assert "no plain tar" in told  # a header's own checksum tells


def metadata(width: int, height: int) -> bytes:
    return json.dumps({"width": width, "height": height}).encode()


@pytest.mark.parametrize(
    ("member", "data", "problem"),
    [
        (1, encoded(colorful(60, 48)), "gray.jpg is RGB, not L"),
        (1, encoded(colorful(60, 48).convert("L"))[:600], "gray.jpg cannot be decoded"),
        (0, encoded(colorful(60, 48), subsampling=2), "color.jpg has less chroma than 4:4:4"),
        (0, encoded(colorful(60, 48).convert("L")), "color.jpg is L, not RGB"),
        (0, encoded(colorful(60, 50), subsampling=0), "color.jpg has 60 x 50 pixels, not 60 x 48"),
        (0, b"no picture", "color.jpg cannot be decoded"),
        (2, metadata(60, 47), "short side of 47 pixels, not 48"),
        (2, metadata(62, 48), "gray.jpg has 60 x 48 pixels, not 62 x 48"),
        (2, b"{}", "json does not tell width and height"),
        (2, b'{"width": "x", "height": 48}', "json does not tell width and height"),
    ],
)
def test_a_sample_that_cannot_be_trained_on_is_named(
    shards: Path, capsys: pytest.CaptureFixture[str], member: int, data: bytes, problem: str
) -> None:
    replace_member(shards / FIRST, 3 + member, data)
    trust(shards, FIRST)
    assert verify(shards) == 1
    assert f"{FIRST} {key_at(shards, FIRST, 1)}: {problem}" in capsys.readouterr().out


def test_members_out_of_order_are_told(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_at(shards, FIRST, 0)
    replace_member(shards / FIRST, 0, b"x", f"{key}.json")
    replace_member(shards / FIRST, 2, b"x", f"{key}.color.jpg")
    replace_member(shards / SECOND, 0, b"x", f"{key_at(shards, SECOND, 0)}.gray.jpg")
    for name in (FIRST, SECOND):
        trust(shards, name)
    assert verify(shards, quick=True) == 1
    told = capsys.readouterr().out
    assert f"{key}: its members are json, gray.jpg, color.jpg, not color.jpg, gray.jpg" in told
    assert ": its members are gray.jpg, gray.jpg, json, not color.jpg, gray.jpg, json" in told
    assert verify(shards) == 1
    told = capsys.readouterr().out
    assert ": webdataset cannot read it: " in told
    assert "duplicate file name in tar file" in told


def test_shards_of_the_earlier_writer_are_sound(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_earlier_version(shards)
    assert verify(shards) == 0


def test_what_webdataset_reads_otherwise_is_told(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Zeros end a tar. Our index reads on, as for tars that were joined; webdataset does not.
    start = index_shard(shards / FIRST).place("color", 2)[0] - 512
    data = (shards / FIRST).read_bytes()
    (shards / FIRST).write_bytes(data[:start] + bytes(1024) + data[start:])
    trust(shards, FIRST)
    assert verify(shards) == 1
    told = capsys.readouterr().out
    assert f"{FIRST} {key_at(shards, FIRST, 2)}: webdataset sees the end of the shard" in told
    assert told.count(": webdataset ") == 1


@pytest.mark.parametrize("damage", ["flipped", "cut short", "another's"])
def test_a_damaged_index_is_told_by_a_quick_look(
    shards: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    index = shards / "train-000000.index.npz"
    match damage:
        case "flipped":
            flip(index, index.read_bytes().index(b"color.npy") + 150)
        case "cut short":
            index.write_bytes(index.read_bytes()[:300])
        case "another's":
            shutil.copy(shards / "train-000001.index.npz", index)
    assert verify(shards, quick=True) == 1
    assert f"{FIRST}: " in capsys.readouterr().out


def test_swapped_shards_are_told(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shards / FIRST).rename(shards / "aside")
    (shards / SECOND).rename(shards / FIRST)
    (shards / "aside").rename(shards / SECOND)
    for name in (FIRST, SECOND):
        trust(shards, name)
    assert verify(shards) == 1
    told = capsys.readouterr().out
    assert f"{FIRST}: bits have changed" in told
    assert f"{SECOND}: bits have changed" in told


def test_wrong_counts_and_repeated_keys_are_told_by_a_quick_look(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = index_shard(shards / "val-000000.tar").num_samples
    edit_manifest(shards, lambda s: entry(s, "val-000000.tar").update(num_samples=count + 1))
    shutil.copy(shards / FIRST, shards / SECOND)  # within a split
    shutil.copy(shards / FIRST, shards / "val-000001.tar")  # and in the one cut off from it
    for name in (SECOND, "val-000001.tar"):
        trust(shards, name)
    key = key_at(shards, FIRST, 0)
    assert verify(shards, quick=True) == 1
    told = capsys.readouterr().out
    assert f"val-000000.tar: {count} samples, not {count + 1}" in told
    assert f"{SECOND} {key}: the same key is in {FIRST}" in told
    assert f"val-000001.tar {key}: the same key is in {SECOND}" in told


def test_splits_of_other_photographs_may_share_keys(photos: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "others").mkdir()
    shutil.copy(photos / "photo 001.jpg", tmp_path / "others")
    write(plans_for(photos, tmp_path / "out"))
    write(plans_for(tmp_path / "others", tmp_path / "out", "val"))
    assert verify(tmp_path / "out", quick=True) == 0
    assert "note" not in capsys.readouterr().out
    write(plans_for(photos, tmp_path / "out", "test"))
    assert verify(tmp_path / "out", quick=True) == 0
    assert "note: test and train are made of the same photographs" in capsys.readouterr().out


def test_files_that_the_manifest_does_not_know_are_told(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shards / ".train-000002.tar.4711.tmp").write_bytes(b"half")
    shutil.copy(shards / FIRST, shards / "test-000000.tar")
    assert verify(shards) == 0  # a reader of the manifest does not meet these
    told = capsys.readouterr().out
    assert "note: test is not in the manifest yet" in told
    assert "note: 1 file of a run that was killed, or is running now: .train-000002.tar.4" in told
    shutil.copy(shards / FIRST, shards / "train-000099.tar")
    assert verify(shards) == 1
    assert "train-000099.tar: is not in the manifest" in capsys.readouterr().out


@pytest.mark.parametrize("with_sidecars", [True, False])
def test_what_is_told_mends_the_shards(
    sound: Path,
    photos: Path,
    shards: Path,
    capsys: pytest.CaptureFixture[str],
    with_sidecars: bool,
) -> None:
    flip(shards / SECOND, 3000)
    shutil.copy(shards / FIRST, shards / "train-000099.tar")
    if not with_sidecars:
        for path in shards.glob("*-*.json"):
            path.unlink()
    assert write(plans_for(photos, shards, val_fraction=0.25)) == 0  # sizes alone do not tell
    assert verify(shards) == 1
    commands = [line for line in capsys.readouterr().out.splitlines() if "rm -f" in line]
    subprocess.run(["sh", "-c", "\n".join(commands)], check=True)
    made = write(plans_for(photos, shards, val_fraction=0.25))
    assert made == (5 if with_sidecars else 20)
    assert verify(shards) == 0
    if with_sidecars:
        assert contents(shards) == contents(sound)


def test_one_split_is_enough(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shards / FIRST).unlink()
    assert verify(shards, split="val") == 0
    assert "train" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no split 'test' \(there: train, val\)"):
        verify(shards, split="test")


def test_many_faults_are_counted(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_manifest(shards, lambda splits: splits["train"]["prep"].update(short_side=47))
    assert verify(shards, split="train") == 1
    edit_manifest(shards, lambda splits: splits["train"].update(shards=missing_shards(100)))
    assert verify(shards, split="train") == 1
    told = capsys.readouterr().out
    assert "… and 74 more" in told  # 100 are missing, 4 are not in the manifest
    assert told.count("is missing") == 30


def missing_shards(count: int) -> list[dict]:
    shard = {"num_samples": 1, "bytes": 1, "sha256": ""}
    return [{"name": f"train-{number:06d}.tar", **shard} for number in range(1000, 1000 + count)]


def test_what_cannot_be_verified_is_a_mistake(shards: Path) -> None:
    path = shards / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(UserError, match="format version 7, this program reads 1"):
        verify(shards)
    with pytest.raises(UserError, match="there is no folder"):
        verify(shards / "absent")
    with pytest.raises(UserError, match="--num_workers -1: give 0 or more"):
        verify(shards, num_workers=-1)


@pytest.mark.parametrize(("damage", "status"), [("none", 0), ("missing", 1), ("no manifest", 2)])
def test_the_exit_status_tells(shards: Path, damage: str, status: int) -> None:
    if damage == "missing":
        (shards / FIRST).unlink()
    elif damage == "no manifest":
        (shards / "manifest.json").unlink()
    command = [sys.executable, "-m", "data_prep.verify_shards", "--shards", str(shards), "--quick"]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr


def test_shards_at_a_url_are_verified_and_not_kept(
    sound: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    with WebServer() as server:
        server.files = {f"/{name}": data for name, data in contents(sound).items()}
        options = VerifyShardsOptions(shards=server.url, num_workers=1, shards_cache=str(cache))
        assert verify_shards(options) == 0
        assert not list(cache.glob("*.tar"))
        flip(shards / FIRST, 3000)
        server.files[f"/{FIRST}"] = (shards / FIRST).read_bytes()
        del server.files[f"/{SECOND}"]
        capsys.readouterr()
        assert verify_shards(options) == 1
        with pytest.raises(UserError, match="--quick looks at sizes of files"):
            verify_shards(VerifyShardsOptions(shards=server.url, quick=True))
    told = capsys.readouterr().out
    assert "was altered since its manifest was written" in told
    assert "HTTP status 404" in told
    assert "2 faults in 2 shards" in told


def test_the_index_that_lies_at_the_url_is_compared_with_its_shard(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ShardServer(shards) as server:
        cache = str(tmp_path / "cache")
        options = VerifyShardsOptions(shards=server.url, num_workers=1, shards_cache=cache)
        index = index_path(shards, FIRST)
        index.unlink()
        assert verify_shards(options) == 0  # readers make one
        shutil.copy(index_path(shards, SECOND), index)
        damaged = index_path(shards, "train-000002.tar")
        damaged.write_bytes(damaged.read_bytes()[:200])
        server.faults["train-000003.index.npz"].append(shard_server.denied)
        capsys.readouterr()
        assert verify_shards(options) == 1
    told = capsys.readouterr().out
    assert f"{FIRST}: {index.name} is the index of something else" in told
    assert f"train-000002.tar: the index {server.url}/{damaged.name} is damaged" in told
    assert "train-000003.index.npz: HTTP status 403: access is denied" in told
    assert "3 faults in 3 shards" in told


def test_shards_that_others_made_are_verified_by_their_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others, out = by_shard_writer(tmp_path / "others"), tmp_path / "out"
    options = IndexShardsOptions(shards=(str(others),), out=out, min_short_side=40, num_workers=1)
    index_shards(options)
    assert verify(out) == 0
    assert verify(out, quick=True) == 0
    index = read_index(index_path(out, "train-00000.tar"))
    flip(others / "00000.tar", index.place("picture", 1)[0])
    (others / "00001.tar").unlink()
    capsys.readouterr()
    assert verify(out) == 1
    told = capsys.readouterr().out
    assert "train-00000.tar 000001: its picture cannot be used" in told
    assert "train-00001.tar: is missing" in told
    assert "index them again" in told
