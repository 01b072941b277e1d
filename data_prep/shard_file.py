"""One shard: a slice of the photographs → a tar of pairs, and the sidecar that marks it done."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from errno import EDQUOT, ENOSPC
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from data_prep.pairs import JPEG_QUALITY, Pair, PairSettings, make_pair
from data_prep.photos import OTHER_KIND, Photo, Source, read_photo
from pix2pix.data.index import COLOR, GRAY, METADATA, index_path, index_shard, write_index
from pix2pix.data.shards import Shard
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError
from pix2pix.photos.resize import RESIZER
from pix2pix.system.durable import aside, publish, publish_aside
from pix2pix.system.light_webdataset import import_webdataset
from pix2pix.system.machine import keep_freed_memory

WRITER = "webdataset.TarWriter"
EARLIER_WRITER = "before webdataset"  # whose sidecars name no writer


@dataclass(frozen=True)
class Prep:
    """Everything that decides a split's bytes, but for the photographs' own.

    photos: digest of the list of photographs, of which there are num_photos. annotations: digest
    of what is known of them. resizer: the library that resizes, which differs by machine. writer:
    what lays out the tar. The others are make_shards' options. Another value in any field makes
    another split.
    """

    photos: str
    num_photos: int
    seed: int
    val_fraction: float
    samples_per_shard: int
    short_side: int
    min_short_side: int
    min_chroma: float
    annotations: str | None = None
    licenses: str | None = None
    jpeg_quality: int = JPEG_QUALITY
    resizer: str = RESIZER
    writer: str = WRITER


@dataclass(frozen=True)
class Reject:
    """A photograph that was left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Sidecar:
    """What was made of one slice. A shard without samples has no file, only this."""

    prep: Prep
    shard: Shard
    rejects: tuple[Reject, ...]
    notes: dict[str, int] = field(default_factory=dict)  # what was kept, but not as it was meant

    @property
    def reasons(self) -> Counter[str]:
        """How many photographs were left out for each reason."""
        return Counter(reject.reason for reject in self.rejects)


@dataclass(frozen=True)
class ShardTask:
    """One shard to make.

    members: (index in the sorted list of all photographs, photograph). others: names of files of
    other kinds, to be listed among the rejects.
    """

    root: Path
    split: str
    index: int
    source: Source
    prep: Prep
    members: tuple[tuple[int, Photo], ...]
    others: tuple[str, ...] = ()

    @property
    def tar(self) -> Path:
        """Where the shard goes."""
        return self.root / shard_name(self.split, self.index)

    @property
    def index_file(self) -> Path:
        """Where the shard's index goes."""
        return index_path(self.root, self.tar.name)

    @property
    def sidecar(self) -> Path:
        """Where the sidecar goes."""
        return self.tar.with_suffix(".json")


def shard_name(split: str, index: int) -> str:
    """Return the name of the tar file of shard `index`."""
    return f"{split}-{index:06d}.tar"


def make_shard(task: ShardTask, count: Callable[[], None]) -> None:
    """Write index and tar and, once they are durable, the sidecar.

    `count` is called per photograph. Memory is one photograph's. The bytes depend on the task
    alone. Raises UserError where the disk is full or will not have it; nothing half-written
    remains.
    """
    keep_freed_memory()
    with disk_errors(task.root):
        try:
            sidecar = _write_tar(task, count)
            if sidecar.shard.num_samples:
                write_index(task.index_file, index_shard(aside(task.tar), sidecar.shard.sha256))
                publish_aside(task.tar)
            publish(task.sidecar, _to_json(sidecar))
        finally:
            aside(task.tar).unlink(missing_ok=True)


def read_sidecar(path: Path) -> Sidecar | None:
    """Return the sidecar at `path`; None where there is none that this program wrote."""
    try:
        content = json.loads(path.read_bytes())
        rejects = tuple(Reject(**reject) for reject in content["rejects"])
        prep = Prep(**{"writer": EARLIER_WRITER} | content["prep"])
        shard = Shard(**content["shard"])
        return Sidecar(prep, shard, rejects, content.get("notes", {}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finished_sidecar(tar: Path, prep: Prep) -> Sidecar | None:
    """Return the sidecar of a shard that was made with `prep` and is as large as it says."""
    sidecar = read_sidecar(tar.with_suffix(".json"))
    if sidecar is None or sidecar.prep != prep or sidecar.shard.name != tar.name:
        return None
    if sidecar.shard.num_samples:
        return sidecar if tar.is_file() and tar.stat().st_size == sidecar.shard.bytes else None
    return sidecar


def differences(
    earlier: Mapping[str, object], later: Mapping[str, object], form: str = "{} {} there, {} now"
) -> str:
    """Return what differs between two `Prep`s, each as `form` tells (name, earlier, later)."""
    names = [*later, *(name for name in earlier if name not in later)]
    changed = [name for name in names if earlier.get(name) != later.get(name)]
    return "; ".join(form.format(name, earlier.get(name), later.get(name)) for name in changed)


def tell_earlier_writer(root: Path, split: str) -> str:
    """Return what to do about a split that an earlier version of this program began in `root`."""
    return (
        f"{root} holds a split '{split}' that an earlier version began: it wrote other bytes, and "
        f"the two do not mix. Remove its files and run the same command again, from the start:\n"
        f"    rm -f {root}/{split}-*.tar {root}/{split}-*.json {root}/{split}-*.index.npz"
    )


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn an OSError of writing below `root` into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise UserError(
                f"no disk space left for {root}; free some and run the same command again: "
                "what is done stays done"
            ) from error
        raise UserError(f"cannot write to {root}: {error}") from error


def require_webdataset() -> None:
    """Raise UserError where webdataset, which writes shards, cannot be imported."""
    try:
        import_webdataset()
    except ImportError as error:
        raise UserError(
            f"shards are written by the package webdataset, which cannot be imported ({error}); "
            "install it: pip install webdataset"
        ) from error


def _write_tar(task: ShardTask, count: Callable[[], None]) -> Sidecar:
    prep = task.prep
    settings = PairSettings(prep.short_side, prep.min_short_side, prep.min_chroma)
    rejects = []
    notes: Counter[str] = Counter()
    with aside(task.tar).open("wb", buffering=2**18) as file:
        summed = _SummedFile(file)
        # No time and no owner, so that equal photographs make equal bytes.
        with import_webdataset().TarWriter(
            summed, encoder=False, mtime=0, user="", group="", mode=0o644
        ) as tar:
            for index, photo in task.members:
                try:
                    pair = make_pair(read_photo(task.source, photo), settings)
                except PhotoError as error:
                    rejects.append(Reject(photo.name, error.reason))
                else:
                    notes.update(pair.notes)
                    tar.write(_sample(index, photo, pair))
                count()
    num_samples = len(task.members) - len(rejects)
    rejects += [Reject(name, OTHER_KIND) for name in task.others]
    shard = Shard(task.tar.name, num_samples, summed.num_bytes, summed.digest.hexdigest())
    return Sidecar(prep, shard, tuple(rejects), dict(sorted(notes.items())))


class _SummedFile:
    """A file that is written front to back, with the SHA-256 and number of its bytes so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = sha256()
        self.num_bytes = 0

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self.digest.update(data)
        self.num_bytes += len(data)
        self._file.write(data)


def _sample(index: int, photo: Photo, pair: Pair) -> dict[str, Any]:
    """Return a sample as webdataset takes it; its key is unique in a list of photographs."""
    metadata = {
        "source": photo.name,
        "id": os.path.splitext(photo.name)[0],
        "width": pair.width,
        "height": pair.height,
        "photo_width": pair.photo_width,
        "photo_height": pair.photo_height,
        **photo.metadata,
    }
    return {
        "__key__": f"{index:09d}",
        GRAY: pair.gray_jpeg,
        COLOR: pair.color_jpeg,
        METADATA: json.dumps(metadata).encode(),
    }


def _to_json(sidecar: Sidecar) -> bytes:
    content = asdict(sidecar) | {"shard": sidecar.shard.to_json()}
    return (json.dumps(content, sort_keys=True) + "\n").encode()
