"""A data set: one split of a folder or URL, and where its files are on this machine (no torch)."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pix2pix.config import TrainConfig
from pix2pix.data.index import (
    ShardIndex,
    index_name,
    index_path,
    index_shard,
    read_index,
    write_index,
)
from pix2pix.data.shards import (
    Shard,
    Split,
    identity_of,
    open_split,
    place_of,
    read_manifest,
)
from pix2pix.errors import UserError
from pix2pix.system.urls import is_url, join

if TYPE_CHECKING:
    from pix2pix.data.cache import ShardCache


@dataclass(frozen=True)
class DataSet:
    """A split of the folder or URL `root`.

    weight: how often each sample is seen in an epoch.
    cache: for shards that lie at a URL; whole: for all of them.
    """

    root: str
    split: Split
    weight: int = 1
    cache: "ShardCache | None" = None
    whole: bool = False

    def place(self, shard: Shard) -> str:
        """Where the shard's tar lies."""
        return place_of(self.root, shard)

    @property
    def needs_cache(self) -> bool:
        """True if some of its shards, or its index, lie at a URL."""
        remote = (is_url(self.place(shard)) for shard in self.split.shards)
        return is_url(self.root) or any(remote)

    def local_tar(self, shard: Shard) -> str | None:
        """Return the path of the shard's tar; None where it is read from the cache."""
        place = self.place(shard)
        return None if self.whole or is_url(place) else place

    def is_cached(self, shard: Shard) -> bool:
        """Return True if the shard is read from the cache."""
        return self.local_tar(shard) is None

    def tar(self, shard: Shard) -> Path:
        """Return the shard as a file; one that is cached is fetched, if need be."""
        local = self.local_tar(shard)
        return self._cache.get(self.place(shard), shard) if local is None else Path(local)

    def index(self, shard: Shard) -> ShardIndex:
        """Return the shard's index. An older folder has none: it is made, and kept if possible.

        Raises UserError: it is damaged, or of another tar.
        """
        try:
            path = self._index_file(shard)
            index = None if path is None else read_index(path)
        except FileNotFoundError:
            index = None
        if index is None or (index.shard != shard.sha256 and shard.index_sha256 is None):
            index = self._make_index(shard)
        if index.shard != shard.sha256 or index.num_samples != shard.num_samples:
            raise UserError(
                f"the shard {self.place(shard)} has {index.num_samples} samples, the manifest says "
                f"{shard.num_samples}, or its index is of another tar; copy both again, or make "
                "them again"
            )
        return index

    @property
    def _cache(self) -> "ShardCache":
        assert self.cache is not None, "a URL needs a cache"
        return self.cache

    def _index_file(self, shard: Shard) -> str | Path | None:
        name = index_name(shard.name)
        if self.whole or is_url(self.root):
            return self._cache.get_index(join(self.root, name), shard)
        return os.path.join(self.root, name)  # not a Path, which costs as much as the reading

    def _make_index(self, shard: Shard) -> ShardIndex:
        index = index_shard(self.tar(shard), shard.sha256)
        cached = self.whole or is_url(self.root)
        path = self._cache.index_path(shard) if cached else index_path(Path(self.root), shard.name)
        with contextlib.suppress(OSError):  # a folder that is read only
            write_index(path, index)
        return index


Need = tuple[DataSet, Shard]  # a shard that somebody reads


def epoch_samples(data_sets: Sequence[DataSet]) -> int:
    """Return samples of an epoch: each as often as its data set's weight says."""
    return sum(data.split.num_samples * data.weight for data in data_sets)


def digest_of(data_sets: Sequence[DataSet]) -> str:
    """Identity of the content of all, wherever it lies."""
    return identity_of([data.split for data in data_sets], [data.weight for data in data_sets])


def open_data(
    roots: Sequence[str],
    name: str,
    image_size: int,
    weights: Sequence[int] = (),
) -> list[DataSet]:
    """Return the split `name` of each folder or URL, as a training at `image_size` reads it.

    Raises UserError where one has no such split.
    """
    found = []
    for place, weight in zip(roots, weights or (1,) * len(roots), strict=True):
        root = os.path.expanduser(place)
        split = open_split(root, name).at(image_size)
        found.append(DataSet(root, split, weight))
    return found


def open_training(config: TrainConfig) -> tuple[list[DataSet], list[DataSet]]:
    """Return the train splits of --shards, and the val splits there are, without a cache.

    Raises UserError.
    """
    train = open_data(config.shards, "train", config.image_size, config.shard_weights or ())
    having = [root for root in config.shards if has_validation(root)]
    return train, open_data(having, "val", config.image_size)


def has_validation(root: str) -> bool:
    """Return True if the folder or URL has a split "val"."""
    return "val" in read_manifest(os.path.expanduser(root)).splits


def with_cache(
    data_sets: Sequence[DataSet], folder: str | None, most_gib: float | None
) -> list[DataSet]:
    """Return the data sets with the cache of this node: of all shards in `folder`, or of URLs.

    Call it on each node. Raises UserError where the cache cannot be written.
    """
    if folder is None and not any(data.needs_cache for data in data_sets):
        return list(data_sets)
    from pix2pix.data.cache import ShardCache, cache_folder  # most sets need none

    cache = ShardCache(cache_folder(folder), most_gib)
    return [replace(data, cache=cache, whole=folder is not None) for data in data_sets]
