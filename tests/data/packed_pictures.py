"""A folder with a manifest over tars as others make them, for tests of reading."""

import io
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np

from pix2pix.data.index import ShardIndex, as_keys, as_places, index_path, tar_files, write_index
from pix2pix.data.shards import Manifest, Shard, Split, write_manifest
from tests.photographs import colorful, encoded


def write_pictures(root: Path, counts: tuple[int, ...] = (7, 5), **places: str) -> Path:
    """Pictures of several kinds and sizes in `root`, a tar each of so many; split "train".

    places: URL of a shard, by the number in its name (s0, s1, …).
    """
    root.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, count in enumerate(counts):
        tar = root / f"others-{number:05d}.tar"
        with tarfile.open(tar, "w") as archive:
            for index in range(count):
                kind, extension = [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")][index % 3]
                photo = colorful(150 + 10 * index, 110, seed=100 * number + index)
                data = encoded(photo, kind)
                info = tarfile.TarInfo(f"sub/{number}{index:04d}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        entries.append(_entry(root, tar, places.get(f"s{number}")))
    split = Split("train", tuple(entries), {"min_short_side": 40}, {}, "pictures")
    write_manifest(root, Manifest({"train": split}))
    return root


def _entry(root: Path, tar: Path, url: str | None) -> Shard:
    digest = sha256(tar.read_bytes()).hexdigest()
    found = list(tar_files(tar))
    keys = as_keys([name.rpartition(b".")[0] for name, _, _ in found])
    picture = as_places([(offset, size) for _, offset, size in found])
    index = ShardIndex(digest, keys, {"picture": picture, "metadata": np.zeros_like(picture)})
    index_digest = write_index(index_path(root, tar.name), index)
    size = tar.stat().st_size
    return Shard(tar.name, len(found), size, digest, url, index_digest)
