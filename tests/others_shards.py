"""Shards as others pack them, for the tests of indexing: by webdataset, by tar, by img2dataset."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.photographs import colorful, encoded

Sample = tuple[str, Mapping[str, bytes]]  # key, data by kind


def picture(number: int, width: int = 80, height: int = 64, kind: str = "JPEG") -> bytes:
    return encoded(colorful(width, height, seed=number), kind)


def by_shard_writer(folder: Path, count: int = 10, per_shard: int = 5) -> Path:
    """jpg and cls, as webdataset's own ShardWriter writes them: times and an owner in the tar."""
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    pattern = str(folder / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=per_shard, verbose=0) as writer:
        for number in range(count):
            key = f"{number:06d}"
            writer.write({"__key__": key, "jpg": picture(number), "cls": str(number % 3).encode()})
    return folder


def in_img2dataset_layout(folder: Path, count: int = 6) -> Path:
    """One shard of jpg, json and txt, and img2dataset's own parquet and statistics beside it."""
    samples = []
    for number in range(count):
        about = {"url": f"http://host/{number}", "status": "success", "LICENSE": f"cc {number % 2}"}
        members = {"jpg": picture(number), "json": json.dumps(about).encode(), "txt": b"a picture"}
        samples.append((f"{number:09d}", members))
    write_tar(folder / "00000.tar", samples)
    (folder / "00000.parquet").write_bytes(b"PAR1")
    (folder / "00000_stats.json").write_text("{}")
    return folder


def write_tar(
    path: Path, samples: Sequence[Sample], format: int = tarfile.PAX_FORMAT, mtime: float = 1.5
) -> Path:
    """A tar by Python's tarfile; the time makes a pax header for each member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for key, members in samples:
            for kind, data in members.items():
                info = tarfile.TarInfo(f"{key}.{kind}")
                info.size, info.mtime = len(data), mtime
                tar.addfile(info, io.BytesIO(data))
    return path
