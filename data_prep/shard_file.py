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
from tarfile import BLOCKSIZE, USTAR_FORMAT, TarInfo

from data_prep.pairs import JPEG_QUALITY, Pair, PairSettings, make_pair
from data_prep.photos import OTHER_KIND, Photo, Source, read_photo
from pix2pix.data.index import COLOR, GRAY
from pix2pix.data.shards import Shard
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError
from pix2pix.photos.resize import RESIZER
from pix2pix.system.durable import aside, publish, publish_aside
from pix2pix.system.machine import keep_freed_memory


@dataclass(frozen=True)
class Prep:
    """Everything that decides a split's bytes, but for the photographs' own.

    photos: digest of the list of photographs, of which there are num_photos. annotations: digest
    of what is known of them. resizer: the library that resizes, which differs by machine. The
    others are make_shards' options. Another value in any field makes another split.
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
    def sidecar(self) -> Path:
        """Where the sidecar goes."""
        return self.tar.with_suffix(".json")


def shard_name(split: str, index: int) -> str:
    """Name of the tar file of shard `index`."""
    return f"{split}-{index:06d}.tar"


def make_shard(task: ShardTask, count: Callable[[], None]) -> None:
    """Write the tar and, once that is durable, the sidecar; `count` is called per photograph.

    Memory is one photograph's. The bytes depend on the task alone. Raises UserError where the disk
    is full or will not have it; nothing half-written remains.
    """
    keep_freed_memory()
    with disk_errors(task.root):
        try:
            sidecar = _write_tar(task, count)
            if sidecar.shard.num_samples:
                publish_aside(task.tar)
            publish(task.sidecar, _to_json(sidecar))
        finally:
            aside(task.tar).unlink(missing_ok=True)


def read_sidecar(path: Path) -> Sidecar | None:
    """The sidecar at `path`; None where there is none that this program wrote."""
    try:
        content = json.loads(path.read_bytes())
        rejects = tuple(Reject(**reject) for reject in content["rejects"])
        prep, shard = Prep(**content["prep"]), Shard(**content["shard"])
        return Sidecar(prep, shard, rejects, content.get("notes", {}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finished_sidecar(tar: Path, prep: Prep) -> Sidecar | None:
    """The sidecar of the shard at `tar` if that was made with `prep` and is as large as it says."""
    sidecar = read_sidecar(tar.with_suffix(".json"))
    if sidecar is None or sidecar.prep != prep or sidecar.shard.name != tar.name:
        return None
    if sidecar.shard.num_samples:
        return sidecar if tar.is_file() and tar.stat().st_size == sidecar.shard.bytes else None
    return sidecar


def differences(
    earlier: Mapping[str, object], later: Mapping[str, object], form: str = "{} {} there, {} now"
) -> str:
    """What differs between two `Prep`s as mappings, each as `form` tells (name, earlier, later)."""
    names = [*later, *(name for name in earlier if name not in later)]
    changed = [name for name in names if earlier.get(name) != later.get(name)]
    return "; ".join(form.format(name, earlier.get(name), later.get(name)) for name in changed)


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


def _write_tar(task: ShardTask, count: Callable[[], None]) -> Sidecar:
    prep = task.prep
    settings = PairSettings(prep.short_side, prep.min_short_side, prep.min_chroma)
    rejects = []
    notes: Counter[str] = Counter()
    digest = sha256()
    with aside(task.tar).open("wb", buffering=2**18) as file:
        for index, photo in task.members:
            try:
                pair = make_pair(read_photo(task.source, photo), settings)
            except PhotoError as error:
                rejects.append(Reject(photo.name, error.reason))
            else:
                notes.update(pair.notes)
                for part in _sample(index, photo, pair):
                    digest.update(part)
                    file.write(part)
            count()
        end = bytes(2 * BLOCKSIZE)
        digest.update(end)
        file.write(end)
        num_bytes = file.tell()
    num_samples = len(task.members) - len(rejects)
    rejects += [Reject(name, OTHER_KIND) for name in task.others]
    shard = Shard(task.tar.name, num_samples, num_bytes, digest.hexdigest())
    return Sidecar(prep, shard, tuple(rejects), dict(sorted(notes.items())))


def _sample(index: int, photo: Photo, pair: Pair) -> Iterator[bytes]:
    """A sample's tar members, in pieces. KEY is unique in all splits of a list of photographs."""
    key = f"{index:09d}"
    metadata = {
        "source": photo.name,
        "id": os.path.splitext(photo.name)[0],
        "width": pair.width,
        "height": pair.height,
        "photo_width": pair.photo_width,
        "photo_height": pair.photo_height,
        **photo.metadata,
    }
    for name, data in (
        (GRAY, pair.gray_jpeg),
        (COLOR, pair.color_jpeg),
        ("json", json.dumps(metadata).encode()),
    ):
        yield _header(f"{key}.{name}", len(data))
        yield data
        yield bytes(-len(data) % BLOCKSIZE)


# No time, owner or anything else that could differ between runs; checksum left blank.
_BLANK = bytearray(TarInfo().tobuf(USTAR_FORMAT))
_CHECKSUM = slice(148, 156)
_BLANK[_CHECKSUM] = b" " * 8


def _header(name: str, size: int) -> bytes:
    """A tar header as POSIX.1-1988 has it; by TarInfo, three of them cost 2 % of a pair."""
    header = _BLANK.copy()
    header[: len(name)] = name.encode()
    header[124:135] = b"%011o" % size
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def _to_json(sidecar: Sidecar) -> bytes:
    content = asdict(sidecar) | {"shard": sidecar.shard.to_json()}
    return (json.dumps(content, sort_keys=True) + "\n").encode()
