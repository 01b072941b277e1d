"""One folder that holds one of each: the real command leaves out what it must, and says why."""

import json
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.photos import MAX_BYTES
from pix2pix.data.index import index_shard
from pix2pix.data.shards import open_split
from tests.photographs import colorful, encoded, grayish


def bomb() -> bytes:
    """A PNG that claims 50,000 x 50,000 pixels."""
    data = bytearray(encoded(colorful(), "PNG"))
    data[16:24] = struct.pack(">II", 50_000, 50_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def animated(kind: str, seed: int) -> bytes:
    frames = [colorful(seed=seed), grayish()]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def broken_inside() -> bytes:
    data = bytearray(encoded(colorful(seed=20), "PNG"))
    data[60:90] = bytes(30)  # within the deflated pixels
    return bytes(data)


KEPT: dict[str | bytes, bytes] = {
    "animated.gif": animated("GIF", 1),
    "animated.webp": animated("WEBP", 2),
    "broken exif.jpg": encoded(colorful(seed=3), exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "cmyk.jpg": encoded(colorful(seed=4).convert("CMYK")),
    "deep.tiff": encoded(colorful(seed=5), "TIFF"),
    "folder.jpg/inner.jpg": encoded(colorful(seed=6)),
    "copied.jpg": encoded(colorful(seed=7)),
    "png named.jpg": encoded(colorful(seed=8), "PNG"),
    "transparent.png": encoded(colorful(seed=9).convert("RGBA"), "PNG"),
    b"no utf-8 \xe9.jpg": encoded(colorful(seed=10)),
}
DEEP_GRAY = Image.fromarray(np.arange(64 * 80, dtype=np.uint16).reshape(64, 80) * 12)
REJECTED: dict[str, tuple[bytes, str]] = {
    "bomb.png": (bomb(), "too_many_pixels"),
    "broken.png": (broken_inside(), "undecodable"),
    "copy.jpg": (KEPT["copied.jpg"], "duplicate"),
    "cut.jpg": (encoded(colorful(640, 480))[:3000], "truncated"),
    "deep gray.png": (encoded(DEEP_GRAY, "PNG"), "near_gray"),
    "empty too.jpg": (b"", "empty_file"),
    "empty.jpg": (b"", "empty_file"),
    "gray as color.jpg": (encoded(grayish(spread=2)), "near_gray"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    "small.png": (encoded(colorful(80, 20), "PNG"), "too_small"),
    "text.png": (b"I am a text", "not_an_image"),
}
REASONS = [(name, reason) for name, (_, reason) in REJECTED.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name, data in [*KEPT.items(), *((name, data) for name, (data, _) in REJECTED.items())]:
        path = Path(os.fsdecode(os.path.join(os.fsencode(root), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "notes.txt").write_text("no photograph")
    return root


def make(photos: Path, out: Path) -> list[tuple[str, str]]:
    """(name, reason) of each photograph that the command left out, sorted."""
    flags = ["--short_side", "48", "--min_short_side", "40", "--num_workers", "2"]
    flags += ["--samples_per_shard", "6", "--split", "train", "--photos", photos, "--out", out]
    command = [sys.executable, "-m", "data_prep.make_shards", *flags]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    split = open_split(out, "train")
    rejects = [json.loads(line) for line in (out / "rejected.jsonl").open()]
    assert split.rejected == Counter(reject["reason"] for reject in rejects)
    assert all(f"{count} {reason}" in ended.stdout for reason, count in split.rejected.items())
    keys = [key for shard in split.shards for key in index_shard(out / shard.name).names]
    assert len(keys) == split.num_samples
    others = [reject["source"] for reject in rejects if reject["reason"] == "other_kind"]
    assert others == ["notes.txt"]
    assert "left alone for their extensions: 1 (1 .txt)" in ended.stdout
    assert split.num_samples + len(rejects) - 1 == split.prep["num_photos"]
    return sorted((r["source"], r["reason"]) for r in rejects if r["reason"] != "other_kind")


def test_of_a_folder_each_is_kept_or_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    os.mknod(folder / "socket.jpg", stat.S_IFSOCK | 0o600)
    (folder / "huge.tif").touch()
    os.truncate(folder / "huge.tif", MAX_BYTES + 1)  # a hole
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "again").symlink_to(".")
    assert make(folder, tmp_path / "out") == sorted(
        [
            *REASONS,
            ("gone.jpg", "unreadable"),
            ("huge.tif", "too_many_bytes"),
            ("loop.jpg", "unreadable"),
            ("pipe.jpg", "not_a_file"),
            ("socket.jpg", "not_a_file"),
        ]
    )
    assert open_split(tmp_path / "out", "train").num_samples == len(KEPT)


def test_of_a_tar_each_is_kept_or_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(folder, ".")
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("pipe.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.add(folder / "text.png", "../text.png")
        archive.add(folder / "cut.jpg", "cut.jpg")  # a second time
    others = [pair for pair in REASONS if pair[0] != "text.png"]
    assert make(tmp_path / "x.tar", tmp_path / "out") == sorted(
        [
            *others,
            ("text.png", "duplicate"),
            ("link.jpg", "link"),
            ("pipe.jpg", "not_a_file"),
            ("../text.png", "not_an_image"),
            ("cut.jpg", "replaced"),
        ]
    )


def test_of_a_zip_each_is_kept_or_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.name.isascii():
                archive.write(path, path.relative_to(folder))
        archive.writestr("bomb of zeros.tif", bytes(30_000_000))
        archive.writestr("xz.jpg", KEPT["cmyk.jpg"], zipfile.ZIP_LZMA)
        archive.writestr("changed.jpg", b"here is a photograph", zipfile.ZIP_STORED)
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(whole.replace(b"here is a photo", b"here is a phono"))
    assert make(tmp_path / "x.zip", tmp_path / "out") == sorted(
        [
            *REASONS,
            ("bomb of zeros.tif", "not_an_image"),
            ("changed.jpg", "damaged"),
            ("xz.jpg", "unsupported_member"),
        ]
    )
