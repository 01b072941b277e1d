"""The command against a real server on loopback, with small archives made here."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from data_prep.download import DamagedError, Patience
from data_prep.download_coco import (
    COCO,
    DownloadCocoOptions,
    check_archive,
    download_coco,
)
from pix2pix.cli.command_line import parse
from pix2pix.errors import UserError
from tests.photographs import colorful, encoded
from tests.web_server import (
    Asked,
    WebServer,
    announce,
    cut_after,
    damage,
    stall_after,
    status,
    well,
)

ROOT = Path(__file__).parents[2]
VAL = "/zips/val2017.zip"
LISTS = "/annotations/annotations_trainval2017.zip"


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return file.getvalue()


def photos(split: str, seed: int) -> bytes:
    return archive(
        {
            f"{split}/{number:012d}.jpg": encoded(colorful(seed=seed + number), quality=98)
            for number in range(12)
        }
    )


def photo_list(split: str) -> bytes:
    return json.dumps({"images": [{"file_name": f"{split}.jpg"}]}).encode()


TRAINVAL = {
    f"annotations/{kind}_{split}.json": photo_list(split) + b" " * padding
    for kind, padding in (("instances", 5000), ("captions", 0))
    for split in ("train2017", "val2017")
}


@pytest.fixture
def server():
    with WebServer() as server:
        server.files |= {
            "/zips/train2017.zip": photos("train2017", 0),
            VAL: photos("val2017", 100),
            "/zips/unlabeled2017.zip": photos("unlabeled2017", 200),
            LISTS: archive({"../evil.json": b"{}", **TRAINVAL}, zipfile.ZIP_DEFLATED),
            "/annotations/image_info_unlabeled2017.zip": archive(
                {"annotations/image_info_unlabeled2017.json": photo_list("unlabeled2017")}
            ),
        }
        yield server


def download(server: WebServer, out: Path, *splits: str, **changes) -> int:
    options = DownloadCocoOptions(
        out=out, splits=splits or ("val2017",), mirror=server.url, **changes
    )
    return download_coco(options, Patience(tries=3, sleep=lambda seconds: None))


def files(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != ".download.lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_archives_and_lists_of_the_splits_arrive_and_nothing_else(server, tmp_path, capsys):
    out = tmp_path / "a folder" / "coco"
    assert download(server, out, "train2017", "val2017", "unlabeled2017") == 0
    archives = {path.rpartition("/")[2]: data for path, data in server.files.items()}
    lists = {
        f"annotations/{name}.json": photo_list(name.rpartition("_")[2])
        for name in ("captions_train2017", "captions_val2017", "image_info_unlabeled2017")
    }
    assert files(out) == archives | lists
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a folder"]
    printed = capsys.readouterr()
    note = f"note: val2017.zip has {len(server.files[VAL]):,} bytes there; COCO's own has 815,585,"
    assert note in printed.err
    assert "complete and checked" in printed.err
    assert printed.out.endswith(
        f"  python -m data_prep.make_shards --photos '{out}/unlabeled2017.zip' \\\n"
        f"      --annotations '{out}/annotations/image_info_unlabeled2017.json' \\\n"
        "      --out shards --split unlabeled\n"
    )


def test_what_is_finished_is_not_asked_for_again(server, tmp_path, capsys):
    download(server, tmp_path)
    before = files(tmp_path)
    server.asked.clear()
    assert download(server, tmp_path) == 0
    assert server.asked == []
    assert files(tmp_path) == before
    assert capsys.readouterr().out.count(f"nothing to do: {tmp_path} is finished\nnext:") == 1


def test_without_annotations_only_photographs_come(server, tmp_path):
    download(server, tmp_path, annotations=False)
    assert list(files(tmp_path)) == ["val2017.zip"]
    server.asked.clear()
    download(server, tmp_path)  # they can be had later
    assert {asked.path for asked in server.asked} == {LISTS}
    assert "annotations/captions_val2017.json" in files(tmp_path)


def test_what_comes_damaged_is_told_and_got_again(server, tmp_path, capfd):
    server.faults.extend([well, well, damage])
    assert download(server, tmp_path) == 0
    assert files(tmp_path)["val2017.zip"] == server.files[VAL]
    assert "val2017.zip came damaged (Bad CRC-32" in capfd.readouterr().err


@pytest.mark.parametrize("content", [b"<html>sign in first</html>", b"", b"PK\5\6"])
def test_what_is_no_archive_is_an_error_and_leaves_nothing(server, tmp_path, content):
    server.files[VAL] = content
    with pytest.raises(UserError, match=r"val2017.zip came damaged, twice now \(File is not a zip"):
        download(server, tmp_path)
    assert files(tmp_path) == {}


def test_every_damage_to_an_archive_is_seen(tmp_path):
    data = archive({f"{n}.jpg": bytes(range(97 * n % 256)) * 9 for n in range(5)})
    path = tmp_path / "archive.zip"
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place])
        with pytest.raises(DamagedError):
            check_archive(path, "checking")
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        starts = [info.header_offset + 30 + len(info.filename) for info in packed.infolist()[1:]]
    for start in starts:
        path.write_bytes(data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :])
        with pytest.raises(DamagedError, match="CRC"):
            check_archive(path, "checking")


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    total = sum(len(server.files[path]) for path in (VAL, LISTS))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=total - 1))
    with pytest.raises(UserError, match=r"are needed for val2017.zip, annotations_trainval2017"):
        download(server, tmp_path)
    assert [asked.path for asked in server.asked] == [VAL, LISTS]  # the probes
    assert files(tmp_path) == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=total))
    assert download(server, tmp_path) == 0


def test_what_has_come_already_needs_no_space(server, tmp_path, monkeypatch):
    server.faults.extend([well, well, cut_after(5000), *[status(500)] * 2])
    with pytest.raises(UserError, match="Given up"):
        download_coco(
            DownloadCocoOptions(out=tmp_path, splits=("val2017",), mirror=server.url),
            Patience(tries=3, sleep=lambda seconds: None),
        )
    missing = sum(len(server.files[path]) for path in (VAL, LISTS)) - 5000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=missing))
    assert download(server, tmp_path) == 0


def test_a_mirror_of_unknown_sizes_is_fetched_all_the_same(server, tmp_path):
    server.faults.extend([announce(-1)] * 4)
    assert download(server, tmp_path) == 0
    assert files(tmp_path)["val2017.zip"] == server.files[VAL]


def test_a_file_of_somebody_elses_is_left_alone_and_told(server, tmp_path):
    (tmp_path / "val2017.zip").write_bytes(server.files[VAL][:-100])
    with pytest.raises(UserError, match=r"val2017.zip is there, but is no whole archive .* remove"):
        download(server, tmp_path)
    (tmp_path / "val2017.zip").write_bytes(server.files[VAL])  # whole, wherever it came from
    assert download(server, tmp_path) == 0
    assert VAL not in {asked.path for asked in server.asked}


def test_an_archive_without_the_list_is_an_error_that_names_it(server, tmp_path):
    server.files[LISTS] = archive({"annotations/readme.txt": b"moved"})
    with pytest.raises(UserError, match="has no list of val2017 in it"):
        download(server, tmp_path)


def test_two_downloads_into_one_folder_are_refused(server, tmp_path):
    other = FileLock(tmp_path / ".download.lock")
    with other, pytest.raises(UserError, match="another download into"):
        download(server, tmp_path)
    assert server.asked == []
    assert download(server, tmp_path) == 0


def test_a_folder_that_cannot_be_written_to_is_told(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to"):
        download(server, tmp_path / "file" / "coco")


def test_flags():
    options = parse(DownloadCocoOptions, ["--out=x", "--mirror=https://host/coco/"])
    assert options.archives == {
        "train2017.zip": "https://host/coco/zips/train2017.zip",
        "val2017.zip": "https://host/coco/zips/val2017.zip",
        "annotations_trainval2017.zip": "https://host/coco/annotations/annotations_trainval2017.zip",
    }
    assert parse(DownloadCocoOptions, ["--out=x"]).archives["val2017.zip"] == f"{COCO}{VAL}"
    for wrong, words in [
        ("--splits=val2014", "--splits expects train2017, val2017 or unlabeled2017"),
        ("--splits=val2017,val2017", "names one twice"),
        ("--mirror=ftp://host", "begins with http:// or https://"),
        ("--mirror=file:///etc", "begins with http"),
        ("--mirror=http://", "begins with http"),
    ]:
        with pytest.raises(UserError, match=words):
            parse(DownloadCocoOptions, ["--out=x", wrong])


def run(server: WebServer, out: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(variables.pop("mirror", server.url), out),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
    )


def command(mirror: str, out: Path) -> list[str]:
    flags = [f"--out={out}", "--splits=val2017", f"--mirror={mirror}"]
    return [sys.executable, "-m", "data_prep.download_coco", *flags]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_killed_goes_on_where_it_was(server, tmp_path, sent):
    half = len(server.files[VAL]) // 2
    server.faults.extend([well, well, stall_after(half)])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(command(server.url, tmp_path), cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while not any(len(data) == half for data in files(tmp_path).values()):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(sent)
    assert running.wait(30) == (130 if sent == signal.SIGINT else -sent)
    server.asked.clear()
    ended = run(server, tmp_path)
    assert (ended.returncode, ended.stderr.count("complete and checked")) == (0, 2)
    assert Asked(VAL, half) in server.asked
    assert files(tmp_path)["val2017.zip"] == server.files[VAL]


def test_an_error_is_a_line_and_status_2(server, tmp_path):
    server.files.clear()
    ended = run(server, tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "val2017.zip cannot be had: The requested URL returned error: 404" in " ".join(
        ended.stderr.split()
    )


def test_a_proxy_of_the_environment_is_used(server, tmp_path):
    mirror = "http://coco.invalid"  # a proxy is asked for the whole address
    server.files |= {f"{mirror}{path}": data for path, data in server.files.items()}
    ended = run(server, tmp_path, mirror=mirror, http_proxy=server.url, no_proxy="")
    assert ended.returncode == 0, ended.stderr
    assert server.asked[0].path == f"{mirror}{VAL}"
