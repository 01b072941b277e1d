import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.make_shards import MakeShardsOptions, make_shards
from pix2pix.data.shards import open_split
from pix2pix.errors import UserError
from tests.photographs import colorful, encoded, grayish, write_folder
from tests.shard_runs import ENVIRONMENT


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", 6)


def options_for(photos: Path, **changes) -> MakeShardsOptions:
    defaults = {"split": "train", "short_side": 48, "num_workers": 1}
    return MakeShardsOptions(photos=photos, out=photos.parent / "out", **defaults | changes)


def command_line(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_prep.make_shards", *map(str, flags)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_makes_shards_and_says_what_it_made(photos: Path) -> None:
    out = photos.parent / "out"
    flags = ["--photos", photos, "--out", out, "--split", "train", "--short_side", 48]
    flags += ["--samples_per_shard", 4, "--num_workers", 2]
    first = command_line(*flags)
    assert first.returncode == 0, first.stderr
    assert "train: 6 pairs of 6 photographs in 2 shards" in first.stdout
    assert "6 photographs in" in first.stdout
    assert first.stderr == ""
    again = command_line(*flags)
    assert again.returncode == 0
    assert f"nothing to do: {out} is finished" in again.stdout


def test_a_users_mistake_is_one_message(photos: Path) -> None:
    absent = command_line("--photos", photos / "absent", "--out", photos, "--split", "train")
    assert absent.returncode == 2
    assert "there is no such folder" in " ".join(absent.stderr.split())
    assert "Traceback" not in absent.stderr


def test_options_arrive_in_the_shards(photos: Path) -> None:
    options = options_for(
        photos, samples_per_shard=2, seed=4, min_chroma=1.5, min_short_side=31, val_fraction=0.5
    )
    assert make_shards(options) == 0
    for name, counts in (("train", (2, 1)), ("val", (2, 1))):
        split = open_split(options.out, name)
        assert split.sample_counts == counts
        wanted = {"seed": 4, "min_chroma": 1.5, "min_short_side": 31, "short_side": 48}
        assert split.prep.items() >= wanted.items()


@pytest.mark.parametrize(("short_side", "least"), [(48, 48), (286, 256)])
def test_the_smallest_photograph_is_256_px_or_as_small_as_the_pictures(
    photos: Path, short_side: int, least: int
) -> None:
    (photos / "large.png").write_bytes(encoded(grayish(300, 300, spread=50), "PNG"))
    options = options_for(photos, short_side=short_side)
    make_shards(options)
    split = open_split(options.out, "train")
    assert split.prep["min_short_side"] == least
    assert split.num_samples == (7 if least == 48 else 1)


def test_many_rejects_are_warned_of_with_what_to_do(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "gray.png").write_bytes(encoded(grayish(), "PNG"))
    make_shards(options_for(photos))
    written = capsys.readouterr()
    assert "rejected: 1 near_gray" in written.out
    assert "warning: 14% of the photographs for train are left out" in written.err
    assert "--min_chroma" in written.err
    assert "rejected.jsonl" in written.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_side": 8}, "--short_side 8: give 16 or more"),
        ({"samples_per_shard": 0}, "--samples_per_shard 0: give 1 or more"),
        ({"num_workers": -1}, "--num_workers -1: give 0 or more"),
        ({"min_short_side": 0}, "--min_short_side 0: give 1 or more"),
        ({"min_chroma": -1.0}, "--min_chroma -1.0: give 0 or more"),
        ({"val_fraction": 1.0}, "--val_fraction 1: give a share below 1"),
        ({"part": "3/2"}, "--part 3/2: give I/N with I from 1 to N"),
        ({"val_fraction": -0.1}, "--val_fraction -0.1: give 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(photos: Path, changes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        options_for(photos, **changes)


def test_preparing_data_imports_no_torch() -> None:
    script = "import sys, json, data_prep.make_shards; print(json.dumps([*sys.modules]))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    imported = set(json.loads(found.stdout))
    assert not imported & {"torch", "torchvision", "accelerate", "webdataset", "skimage", "sklearn"}


WORKER = """
import sys
from pathlib import Path
from data_prep.shard_file import make_shard
from pix2pix.system.machine import peak_memory
from tests.shard_runs import plans_for
for task in plans_for(Path(sys.argv[1]), Path(sys.argv[2]))[0].tasks:
    make_shard(task, lambda: None)
print("torch" in sys.modules, peak_memory())
"""


def test_a_worker_that_writes_shards_has_no_torch_and_stays_small(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    out.mkdir()
    told = subprocess.run(
        [sys.executable, "-c", WORKER, photos, out],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    has_torch, peak = told.stdout.split()
    assert list(out.glob("*.tar"))
    assert has_torch == "False"
    assert int(peak) < 250e6


def test_without_webdataset_the_mistake_names_it(photos: Path, tmp_path: Path) -> None:
    # Python's own way to say that a package is absent; pip uninstall would hit all other tests.
    code = "import sys; sys.modules['webdataset'] = None; import data_prep.make_shards as make\n"
    code += "make.command()"
    flags = ["--photos", photos, "--out", tmp_path / "out", "--split", "train"]
    told = subprocess.run(
        [sys.executable, "-c", code, *flags], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert told.returncode == 2
    assert "the package webdataset, which cannot be imported" in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "out").exists()


def test_every_file_of_a_phone_is_accounted_for(photos: Path) -> None:
    (photos / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    (photos / "IMG_2.jfif").write_bytes(encoded(colorful(seed=40)))
    (photos / "IMG_3.avif").write_bytes(encoded(colorful(seed=41), "AVIF"))
    (photos / "IMG_4.jpg").write_bytes(encoded(colorful(seed=42))[:-2])
    (photos / "IMG_5.jpg").write_bytes(encoded(colorful(seed=43), icc_profile=b"broken"))
    (photos / "sub" / "clip.MOV").write_bytes(b"\0\0\0\x14ftypqt  ")
    for name in ("IMG_6.NEF", "notes.txt", "Thumbs.db", ".hidden.txt", "@eaDir/a.jpg"):
        path = photos / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"something else")
    out = photos.parent / "out"
    flags = ["--photos", photos, "--out", out, "--split", "train", "--short_side", 48]
    told = command_line(*flags, "--samples_per_shard", 4, "--num_workers", 2)
    assert told.returncode == 0, told.stderr
    assert "left alone for their extensions: 4 (1 .nef, 1 .db, 1 .txt, 1 .mov)" in told.stdout
    assert ".nef: a camera's raw file is not developed here; develop it first" in told.stdout
    assert "train: 10 pairs of 11 photographs" in told.stdout
    assert "1: its color profile is broken and was ignored" in told.stdout
    rejects = [json.loads(line) for line in (out / "rejected.jsonl").open()]
    reasons = {reject["source"]: reject["reason"] for reject in rejects}
    others = dict.fromkeys(["IMG_6.NEF", "notes.txt", "Thumbs.db", "sub/clip.MOV"], "other_kind")
    assert reasons == {"IMG_1.HEIC": "not_an_image", **others}
