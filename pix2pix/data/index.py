"""Shard indexes: where each sample's members lie in a tar (numpy, no torch).

NAME.index.npz lies beside NAME.tar, or beside the manifest that names the tar. A reader maps the
file into memory: whatever the number of processes, a node reads it once and holds it once.
"""

import io
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pix2pix.errors import UserError
from pix2pix.system.durable import publish
from pix2pix.system.mapped import map_file
from pix2pix.system.reading import TRANSIENT

GRAY = "gray.jpg"
COLOR = "color.jpg"
METADATA = "json"

PAIRS: tuple[str, ...] = ("gray", "color", "metadata")

Places = NDArray[np.int64]
Bytes = memoryview | bytes

_FILE = b"0"  # a tar member's kind
_NPY_HEADER = re.compile(
    rb"\{'descr': '([^']+)', 'fortran_order': False, 'shape': \((\d*),? ?(\d*)\), \}"
)
_ZIP_HEADER = struct.Struct("<22xI2H")  # size of the data, lengths of name and extra field


@dataclass(frozen=True)
class ShardIndex:
    """Where each sample's members lie in a tar. N samples, in the order of the file.

    shard: SHA-256 of the tar in hex, "" where nobody computed it.
    keys: [N] bytes; `key` gives one as text.
    places: member ("gray", "color" and "metadata" of pairs, "picture" and "metadata" of pictures)
        → [N, 2] int64, offset and size in bytes; the size is 0 for a sample without that member.
    """

    shard: str
    keys: NDArray[np.bytes_]
    places: Mapping[str, Places]

    @property
    def num_samples(self) -> int:
        """N."""
        return len(self.keys)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys as text."""
        return tuple(self.key(sample) for sample in range(self.num_samples))

    def key(self, sample: int) -> str:
        """Return the key of sample number `sample`; names need not be UTF-8."""
        return bytes(self.keys[sample]).decode(errors="replace")

    def place(self, member: str, sample: int) -> tuple[int, int]:
        """Return offset and size in bytes of a member of sample number `sample`."""
        offset, size = self.places[member][sample].tolist()
        return offset, size


def index_path(root: Path, shard_name: str) -> Path:
    """Return where the index of the shard lies: NAME.index.npz of NAME.tar, in `root`."""
    return root / index_name(shard_name)


def index_name(shard_name: str) -> str:
    """Return NAME.index.npz of NAME.tar."""
    return f"{shard_name.removesuffix('.tar')}.index.npz"


def write_index(path: Path, index: ShardIndex) -> str:
    """Publish `index` at `path` and return its SHA-256 in hex: equal indexes, equal bytes."""
    data = index_bytes(index)
    publish(path, data)
    return sha256(data).hexdigest()


def index_bytes(index: ShardIndex) -> bytes:
    """Return the file of an index: what `numpy.savez` writes, but without the time of day.

    Nothing is compressed, so that `read_index` can map the arrays.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        "shard": np.array([index.shard.encode()], dtype="S64"),
        "keys": index.keys,
    }
    arrays |= {name: places.astype("<i8") for name, places in sorted(index.places.items())}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return file.getvalue()


def read_index(path: str | Path) -> ShardIndex:
    """Return the index at `path`, its arrays mapped from the file: some 50 µs.

    (`numpy.load` takes ten times as long, and memory of each process.) Raises UserError where the
    file is not one that `write_index` wrote, FileNotFoundError where there is none, another OSError
    where its file system stumbles.
    """
    try:
        data = map_file(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            raise
        raise _damaged(str(path), error) from error
    return parse_index(data, str(path))


def parse_index(data: Bytes, place: str) -> ShardIndex:
    """Return the index whose file is `data`, its arrays in there; `place` is for errors.

    Raises UserError where it is not one that `write_index` wrote.
    """
    try:
        arrays = dict(_stored_arrays(data))
        shard = bytes(arrays.pop("shard")[0]).decode()
        return ShardIndex(shard, arrays.pop("keys"), arrays)
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise _damaged(place, error) from error


def _damaged(place: str, error: Exception) -> UserError:
    return UserError(f"the index {place} is damaged ({error}); remove it, or copy it again")


def index_shard(path: Path, shard: str = "") -> ShardIndex:
    """Return the index of the shard of pairs at `path`, from its headers alone.

    It takes some 15 ms per 1,000 samples. (Python's tarfile takes 0.2 s.) `shard`: SHA-256 of the
    tar, for the index.

    Raises:
        UserError: the shard is missing, cut short, no plain tar, or has a sample without both
            pictures.
    """
    samples: dict[bytes, dict[str, tuple[int, int]]] = {}
    for name, offset, size in tar_files(path):
        key, kind = key_and_kind(name)
        found = samples.setdefault(key, {})
        if kind in found:
            raise UserError(f"the shard {path} is no shard of pairs: it has {_text(name)} twice")
        found[kind] = (offset, size)
    for key, found in samples.items():
        if GRAY not in found or COLOR not in found:
            lacking = COLOR if GRAY in found else GRAY
            raise UserError(f"the shard {path} is no shard of pairs: {_text(key)} has no {lacking}")
    kinds = zip(PAIRS, (GRAY, COLOR, METADATA), strict=True)
    tables = {
        member: as_places([found.get(kind, (0, 0)) for found in samples.values()])
        for member, kind in kinds
    }
    return ShardIndex(shard, as_keys(list(samples)), tables)


def as_keys(keys: list[bytes]) -> NDArray[np.bytes_]:
    """Return keys as an index holds them: [N] bytes."""
    return np.array(keys, dtype=np.bytes_) if keys else np.empty(0, dtype="S1")


def as_places(places: list[tuple[int, int]]) -> Places:
    """Return (offset, size) pairs as an index holds them: [N, 2] int64."""
    return np.array(places, dtype=np.int64).reshape(-1, 2)


def key_and_kind(name: bytes) -> tuple[bytes, str]:
    """Return a member's name parted at the first dot of its last component, as WebDataset does."""
    folder, slash, base = name.rpartition(b"/")
    stem, _, extension = base.partition(b".")
    return folder + slash + stem, _text(extension)


def tar_files(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """(name, offset, size) of every regular file of a tar: one pread of 512 bytes each.

    Names of any length are read, as GNU's and POSIX's (pax) tars write them. Raises UserError,
    naming the shard, where it is missing, cut short or no plain tar.
    """
    from pix2pix.data.tar_members import DamagedTarError, members  # only a tar without an index

    try:
        with path.open("rb", buffering=0) as file:
            for member in members(file.fileno()):
                if member.kind == _FILE and not member.sparse:
                    yield member.name, member.offset, member.size
    except OSError as error:
        raise UserError(f"the shard {path} cannot be opened: {error.strerror}") from error
    except DamagedTarError as error:
        raise UserError(
            f"the shard {path} is damaged, or no plain tar: {error}; copy it or make it again"
        ) from error


def _stored_arrays(data: Bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """(name, array in `data`) of every member of a zip file without compression."""
    start = 0
    while data[start : start + 4] == b"PK\x03\x04":
        size, name_length, extra_length = _ZIP_HEADER.unpack_from(data, start)
        name_start = start + _ZIP_HEADER.size
        name = data[name_start : name_start + name_length]
        start = name_start + name_length + extra_length
        yield bytes(name[:-4]).decode(), _array_at(data, start)
        start += size


def _array_at(data: Bytes, start: int) -> NDArray[Any]:
    """Return the array of the .npy file (version 1.0) that starts at `start`."""
    header_start = start + 10
    length = int.from_bytes(data[start + 8 : header_start], "little")
    if data[start : start + 8] != b"\x93NUMPY\x01\x00":
        raise ValueError("an array that is none of ours")
    dtype, shape = _parse_header(bytes(data[header_start : header_start + length]))
    return np.ndarray(shape, dtype, data, header_start + length)


@lru_cache(maxsize=1024)
def _parse_header(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape; shards of one size have equal headers, and to parse one takes 10 µs."""
    found = _NPY_HEADER.match(header)
    if found is None:
        raise ValueError("an array that is none of ours")
    return np.dtype(found[1].decode()), tuple(int(side) for side in (found[2], found[3]) if side)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
