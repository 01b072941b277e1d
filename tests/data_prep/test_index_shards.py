import json
import os
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.index_shards import IndexShardsOptions, index_shards
from pix2pix.data.index import index_path, read_index
from pix2pix.data.shards import Split, read_split
from pix2pix.errors import UserError
from tests.others_shards import by_shard_writer, in_img2dataset_layout, picture, write_tar
from tests.photographs import encoded, grayish
from tests.s3_server import file_system, s3_server
from tests.shard_runs import ENVIRONMENT
from tests.web_server import WebServer


def index(*patterns: object, out: Path, **changes) -> Split:
    defaults = {"min_short_side": 40, "num_workers": 1}
    options = IndexShardsOptions(
        shards=tuple(map(str, patterns)), out=out, **{**defaults, **changes}
    )
    assert index_shards(options) == 0
    return read_split(out, options.split)


def pictures_of(out: Path, split: Split) -> dict[str, bytes]:
    """The file of every picture, by shard and key, read where the index says."""
    pictures = {}
    for shard in split.shards:
        found = read_index(index_path(out, shard.name))
        tar = (out / shard.url).read_bytes()
        assert (found.shard, shard.bytes) == (sha256(tar).hexdigest(), len(tar))
        assert shard.sha256 == found.shard
        for sample in range(found.num_samples):
            offset, size = found.place("picture", sample)
            pictures[f"{shard.name}/{found.key(sample)}"] = tar[offset : offset + size]
    return pictures


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_by_webdatasets_writer_are_indexed_where_they_lie(tmp_path: Path) -> None:
    others, out = by_shard_writer(tmp_path / "others"), tmp_path / "out"
    before = {path.name: path.read_bytes() for path in others.iterdir()}
    split = index(others / "{00000..00001}.tar", out=out)
    assert split.kind == "pictures"
    assert split.sample_counts == (5, 5)
    assert [shard.url for shard in split.shards] == ["../others/00000.tar", "../others/00001.tar"]
    expected = {f"train-0000{n // 5}.tar/{n:06d}": picture(n) for n in range(10)}
    assert pictures_of(out, split) == expected
    assert {path.name: path.read_bytes() for path in others.iterdir()} == before
    indexes = {"train-00000.index.npz", "train-00001.index.npz"}
    assert contents(out).keys() == {"manifest.json", *indexes}


def test_img2datasets_layout_is_indexed_with_its_metadata(tmp_path: Path) -> None:
    split = index(in_img2dataset_layout(tmp_path / "others"), out=tmp_path / "out")
    assert split.sample_counts == (6,)
    found = read_index(index_path(tmp_path / "out", split.shards[0].name))
    tar = (tmp_path / "others/00000.tar").read_bytes()
    offset, size = found.place("metadata", 4)
    assert json.loads(tar[offset : offset + size])["url"] == "http://host/4"


def test_a_tar_of_nested_folders_by_the_program_tar_is_indexed(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(4):
        name = folder / f"class {number % 2}" / ("é" * 60 + f"{number}.JPG")
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(picture(number))
    for format in ("gnu", "pax"):
        command = [
            "tar",
            f"--format={format}",
            "-cf",
            tmp_path / f"{format}.tar",
            "-C",
            folder,
            ".",
        ]
        subprocess.run(command, check=True)
        split = index(tmp_path / f"{format}.tar", out=tmp_path / format)
        found = pictures_of(tmp_path / format, split)
        names = {f"train-{format}.tar/./class {n % 2}/" + "é" * 60 + str(n): n for n in range(4)}
        assert found == {name: picture(number) for name, number in names.items()}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_longer_than_a_header_are_read(tmp_path: Path, format: int) -> None:
    key = "folder/" * 40 + "x" * 90
    write_tar(tmp_path / "a.tar", [(key, {"jpg": picture(0)})], format)
    split = index(tmp_path / "a.tar", out=tmp_path / "out")
    assert pictures_of(tmp_path / "out", split) == {f"train-a.tar/{key}": picture(0)}


def uneven(folder: Path) -> Path:
    """Samples of which some have no picture, one that decodes, or a copy of another's."""
    same = picture(1)
    license = {"name": "CC BY 2.0", "id": 4}
    samples = [
        ("good", {"jpg": same, "json": json.dumps({"license": license}).encode()}),
        ("only text", {"txt": b"words"}),
        ("cut", {"jpg": picture(2, 200, 200)[:900]}),
        ("gray", {"png": encoded(grayish(), "PNG"), "txt": b"x", "json": b"{"}),
        ("small", {"jpg": picture(3, 30, 90)}),
        ("words", {"jpg": b"no picture at all"}),
        ("png", {"PNG": picture(4, kind="PNG"), "json": b'{"licence": "cc0"}'}),
    ]
    write_tar(folder / "a.tar", samples)
    write_tar(
        folder / "b.tar", [("copy", {"webp": picture(5, kind="WEBP")}), ("again", {"jpg": same})]
    )
    return folder


def test_what_is_left_out_has_a_reason_and_is_counted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    split = index(uneven(tmp_path / "others"), out=out)
    assert split.sample_counts == (2, 1)
    assert split.rejected == {
        "duplicate": 1,
        "near_gray": 1,
        "no_picture": 1,
        "not_an_image": 1,
        "too_small": 1,
        "truncated": 1,
    }
    lines = [json.loads(line) for line in (out / "rejected.jsonl").open()]
    told = {line["source"]: line["reason"] for line in lines}
    assert told["train-b.tar/again"] == "duplicate"
    assert told["train-a.tar/only text"] == "no_picture"


def test_color_that_averages_out_from_pixel_to_pixel_is_seen(tmp_path: Path) -> None:
    stripes = np.full((480, 640, 3), 128, np.uint8)
    stripes[:, 0::8, 0] = stripes[:, 1::8, 0] = 228  # red, and as much cyan beside it: gray at 1/8
    stripes[:, 4::8, 0] = stripes[:, 5::8, 0] = 28
    data = encoded(Image.fromarray(stripes), quality=95, subsampling=0)
    tar = write_tar(tmp_path / "x.tar", [("a", {"jpg": data})])
    assert index(tar, out=tmp_path / "out").sample_counts == (1,)


def test_only_wanted_licenses_are_kept(tmp_path: Path) -> None:
    others = uneven(tmp_path / "others")
    split = index(others, out=tmp_path / "out", licenses=("CC BY 2.0", "CC0"))
    assert split.num_samples == 2
    assert split.rejected["license_unknown"] == 6
    split = index(others, out=tmp_path / "one", licenses=("4",))
    assert split.num_samples == 1
    assert split.rejected["license"] == 1


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    others = uneven(tmp_path / "others")
    by_shard_writer(others / "more")
    index(others, out=tmp_path / "one")
    index(others, out=tmp_path / "two", num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_stopped_run_goes_on_with_the_shards_that_are_not_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others, out = by_shard_writer(tmp_path / "others", 15), tmp_path / "out"
    whole = contents(Path(index(others, out=tmp_path / "whole") and tmp_path / "whole"))
    last = (others / "00002.tar").read_bytes()
    (others / "00002.tar").write_bytes(last[:3000])  # as of a disk that fails
    with pytest.raises(UserError, match=r"00002.tar is damaged, or no tar: it is cut short"):
        index(others, out=out)
    assert not (out / "manifest.json").exists()
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.found.npz")}
    assert len(done) == 2
    (others / "00002.tar").write_bytes(last)
    (others / "00000.tar").touch()
    index(others, out=out)
    assert contents(out) == whole
    capsys.readouterr()
    index(others, out=out)
    assert "nothing to do" in capsys.readouterr().out


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    others, out = tmp_path / "others", tmp_path / "out"
    for number in range(8):
        samples = [(f"{n}", {"jpg": picture(10 * number + n, 900, 700)}) for n in range(10)]
        write_tar(others / f"{number}.tar", samples)
    command = [sys.executable, "-m", "data_prep.index_shards", "--shards", str(others)]
    command += ["--num_workers", "2", "--out"]
    run = subprocess.Popen([*command, str(out)], env=ENVIRONMENT)
    while not list(out.glob("*.found.npz")):
        assert run.poll() is None, "it was over before it was killed"
    run.kill()
    assert run.wait() != 0
    assert not (out / "manifest.json").exists()
    for folder in (out, tmp_path / "clean"):
        subprocess.run([*command, str(folder)], env=ENVIRONMENT, check=True)
    assert contents(out) == contents(tmp_path / "clean")


def test_other_parameters_and_shards_are_refused(tmp_path: Path) -> None:
    others, out = by_shard_writer(tmp_path / "others"), tmp_path / "out"
    index(others, out=out)
    with pytest.raises(UserError, match=r"min_chroma 4.0 there, 9.0 now"):
        index(others, out=out, min_chroma=9.0)
    write_tar(others / "more.tar", [("a", {"jpg": picture(3)})])
    with pytest.raises(UserError, match="num_shards 2 there, 3 now"):
        index(others, out=out)


def test_another_split_of_shards_of_the_same_names_joins_the_manifest(tmp_path: Path) -> None:
    first, second = by_shard_writer(tmp_path / "a"), by_shard_writer(tmp_path / "b", 4)
    index(first, out=tmp_path / "out")
    index(second, out=tmp_path / "out", split="val")
    train, val = (read_split(tmp_path / "out", name) for name in ("train", "val"))
    assert len(pictures_of(tmp_path / "out", train)) == 10
    assert len(pictures_of(tmp_path / "out", val)) == 4


def test_shards_of_one_name_in_several_folders_get_names_of_their_own(tmp_path: Path) -> None:
    for name in "ab":
        write_tar(tmp_path / name / "0.tar", [("key", {"jpg": picture(ord(name))})])
    split = index(tmp_path / "a", tmp_path / "b", out=tmp_path / "out")
    assert pictures_of(tmp_path / "out", split) == {
        "train-000000-0.tar/key": picture(ord("a")),
        "train-000001-0.tar/key": picture(ord("b")),
    }


@pytest.mark.parametrize("pattern", ["{00000..00001}.tar", "", "0000", "*1.tar", "0000[01].tar"])
def test_braces_folders_prefixes_and_globs_are_understood(tmp_path: Path, pattern: str) -> None:
    others = by_shard_writer(tmp_path / "others")
    split = index(f"{others}/{pattern}", out=tmp_path / "out")
    assert len(split.shards) == (1 if pattern == "*1.tar" else 2)


def test_what_a_command_prints_is_indexed_under_the_name_that_trainings_use(tmp_path: Path) -> None:
    others = by_shard_writer(tmp_path / "others")
    command = f"pipe:cat {others}/{{00000..00001}}.tar"
    with pytest.raises(UserError, match="needs --train_from"):
        index(command, out=tmp_path / "out")
    split = index(command, out=tmp_path / "out", train_from=f"{others}/{{00000..00001}}.tar")
    assert "pipe" not in (tmp_path / "out/manifest.json").read_text()
    assert len(pictures_of(tmp_path / "out", split)) == 10
    with pytest.raises(UserError, match="a command of --shards 'pipe:…' failed") as failed:
        index("pipe:echo secret; false", out=tmp_path / "x", train_from=f"{others}/00000.tar")
    assert "secret" not in str(failed.value)


def broken_tar(folder: Path, samples) -> str:
    return str(write_tar(folder / "x.tar", samples))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([("a", {"txt": b"a"}), ("b", {"cls": b"1"})], r"x.tar has no pictures .*, but cls, txt"),
        ([], "x.tar has no pictures .*, but no samples"),
        (
            [("a", {"jpg": b"1"}), ("b", {"jpg": b"2"}), ("a", {"txt": b"3"})],
            "x.tar has two samples of one key, a",
        ),
        ([("a", {"jpg": b"1"}), ("a", {"jpg": b"2"})], r"x.tar has a.jpg twice"),
        ([("a", {"jpg": b"1", "png": b"2"})], "sample a has jpg and png; say which with --image"),
    ],
)
def test_shards_that_cannot_be_taken_are_one_clear_error(
    tmp_path: Path, samples, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        index(broken_tar(tmp_path, samples), out=tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()


def test_another_member_may_be_the_picture(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a", {"left.png": picture(1), "jpg": picture(2)})])
    split = index(tar, out=tmp_path / "out", image=("left.png",))
    assert list(pictures_of(tmp_path / "out", split).values()) == [picture(1)]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..3}.tar", r"others/\{0..3\}.tar: .*others/0.tar is not there"),
        ("{0..3.tar", r"braces do not match|names no tar"),
        ("nothing-*.tar", "names no tar"),
        ("", "names no tar"),
    ],
)
def test_a_pattern_that_matches_nothing_is_one_clear_error(
    tmp_path: Path, pattern: str, message: str
) -> None:
    (tmp_path / "others").mkdir()
    with pytest.raises(UserError, match=message):
        index(f"{tmp_path}/others/{pattern}", out=tmp_path / "out")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "looks-plain.tar"])
def test_compressed_tars_are_refused_with_the_command_that_unpacks_them(
    tmp_path: Path, name: str
) -> None:
    write_tar(tmp_path / "plain.tar", [("a", {"jpg": picture(1)})])
    subprocess.run(f"gzip < plain.tar > {name}; rm plain.tar", shell=True, cwd=tmp_path, check=True)
    with pytest.raises(UserError, match="is compressed") as refused:
        index(tmp_path, out=tmp_path / "out")
    command = str(refused.value).splitlines()[-1]
    if name != "looks-plain.tar":
        subprocess.run(command, shell=True, check=True)
        assert index(tmp_path, out=tmp_path / "out").num_samples == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://user:secret@host/a.tar", "carries a user or a password"),
        ("https://host/a.tar?signature=secret", "PIX2PIX_URL_QUERY"),
        ("https://host/folder/", "a web server cannot be asked what it has"),
        ("ftp://host/a.tar", "neither|'ftp:'"),
    ],
)
def test_urls_that_a_manifest_must_not_name_are_refused(
    tmp_path: Path, url: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        index(url, out=tmp_path / "out")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("remote", [False, True])
def test_progress_goes_by_the_bytes_of_a_shard_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    folder = by_shard_writer(tmp_path / "others", count=40, per_shard=40)
    size = (folder / "00000.tar").stat().st_size
    seen = []

    def work(function, tasks, num_workers, advance):
        (task,) = tasks
        function(task, lambda: (seen.append(task.found_file.exists()), advance(1)))

    monkeypatch.setattr("data_prep.index_shards.work_in_parallel", work)
    monkeypatch.setattr("data_prep.found_shard.COUNTED_BYTES", 1000)
    with WebServer() as server:
        server.files = {"/00000.tar": (folder / "00000.tar").read_bytes()}
        place = f"{server.url}/00000.tar" if remote else folder
        index(place, out=tmp_path / "out")
    assert seen == [False] * len(seen)
    assert 0.9 * size < 1000 * len(seen) <= size


def test_shards_on_a_web_server_are_indexed_by_their_urls(tmp_path: Path) -> None:
    others = by_shard_writer(tmp_path / "others")
    with WebServer() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in others.iterdir()}
        pattern = f"{server.url}/{{00000..00001}}.tar"
        split = index(pattern, out=tmp_path / "out", num_workers=2)
        assert [shard.url for shard in split.shards] == [
            f"{server.url}/{number}.tar" for number in ("00000", "00001")
        ]
        index(others, out=tmp_path / "local")
        name = "train-00000.index.npz"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
        with pytest.raises(UserError, match=r"cannot fetch http://.*/absent.tar: .*404"):
            index(f"{server.url}/absent.tar", out=tmp_path / "absent")
        cut = [lambda handler, data: handler.answer(data, cut=20_000)]
        server.faults.extend(cut)  # once: it is asked again
        index(f"{server.url}/00000.tar", out=tmp_path / "cut once")
        server.faults.extend(cut * 3)
        with pytest.raises(UserError, match=r"/00000.tar: the transfer was cut short"):
            index(f"{server.url}/00000.tar", out=tmp_path / "cut")


def test_shards_in_a_bucket_are_listed_and_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = by_shard_writer(tmp_path / "others")
    with s3_server(monkeypatch, "bucket"):
        file_system().put(str(others), "bucket/others", recursive=True)
        urls = [f"s3://bucket/others/0000{number}.tar" for number in range(2)]
        for number, end in enumerate(["", "/0000", "/*.tar", "/{00000..00001}.tar"]):
            split = index(f"s3://bucket/others{end}", out=tmp_path / f"out{number}")
            assert [shard.url for shard in split.shards] == urls
            assert split.num_samples == 10
        with pytest.raises(UserError, match=r"s3://bucket/nothing.* names no tar"):
            index("s3://bucket/nothing", out=tmp_path / "out")
        with pytest.raises(UserError, match=r"s3://no-bucket/a.tar"):
            index("s3://no-bucket/a.tar", out=tmp_path / "out")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        file_system()
        with pytest.raises(UserError, match="s3://bucket/others") as failed:
            index("s3://bucket/others", out=tmp_path / "out")
        assert "testing-secret" not in str(failed.value)


def test_all_left_out_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a", {"png": encoded(grayish(), "PNG")})])
    with pytest.raises(UserError, match=r"no photograph is left.*1 near_gray"):
        index(tar, out=tmp_path / "out")


def test_indexing_loads_no_torch_in_its_workers(tmp_path: Path) -> None:
    others = by_shard_writer(tmp_path / "others")
    code = (
        "import sys; from data_prep.index_shards import *; from pathlib import Path\n"
        f"o = IndexShardsOptions(shards=({str(others)!r},), out=Path({str(tmp_path / 'o')!r}),"
        " min_short_side=40, num_workers=1)\n"
        "index_shards(o); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=dict(os.environ, **ENVIRONMENT), check=True)
