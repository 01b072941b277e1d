"""One tar that others made, looked through: which samples can be trained on, and where they lie."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from tempfile import TemporaryFile, gettempdir
from typing import IO

import numpy as np

from data_prep.index_task import Found, IndexPrep, IndexTask, write_found
from data_prep.licenses import license_terms
from data_prep.photos import MAX_BYTES
from data_prep.shard_file import Reject
from data_prep.shard_list import PIPE, refuse_compressed
from pix2pix.data.fetch import FetchError, chunks
from pix2pix.data.index import METADATA, as_keys, as_places, key_and_kind
from pix2pix.data.tar_members import DamagedTarError, members
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError, chroma_spread, open_eighth, open_reduced
from pix2pix.system.light_webdataset import import_webdataset
from pix2pix.system.machine import keep_freed_memory
from pix2pix.system.urls import is_url

# Color is measured at a short side from this to twice of it, about what preparation measures: the
# noise of a gray scan has averaged out there, and decoding at a fraction costs less.
MEASURED_SIDE = 143  # pixels
_CLEARLY = 2  # times the least chroma spread
_GLANCE = 4  # pixels across of what is decoded at 1/8, for each pixel looked at first
_TRIES = 3  # of a transfer that breaks
_BLOCK = 2**20  # bytes read at a time
COUNTED_BYTES = 2**16  # of a tar, for each call of `count`
_FILE = b"0"  # a tar member's kind
_NO_SAMPLE = re.compile(rb"__[^/]*__($|/)")  # what webdataset passes over

Members = dict[str, tuple[int, int]]  # kind → offset and size in bytes


def look_through(task: IndexTask, count: Callable[[], None]) -> None:
    """Look through a tar, and leave what was found in `task.found_file`.

    `count` is called for each COUNTED_BYTES of the tar. Memory is one picture's. A tar that lies
    elsewhere passes through a temporary file. Raises UserError, naming the place, where it cannot
    be read, or is no tar of samples with one picture each.
    """
    keep_freed_memory()
    meter = _Meter(count)
    with _opened(task.place, meter) as descriptor:
        refuse_compressed(task.told, os.pread(descriptor, 8, 0))
        found = _look(task, _Tar(descriptor), meter)
    write_found(task, found)


class _Meter:
    """Counts the bytes of a tar as they come, or where it lies here as they are looked through."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._count, self._counted = count, 0

    def reach(self, num_bytes: int) -> None:
        """Count up to so many bytes of the tar; fewer than before: nothing."""
        while self._counted + COUNTED_BYTES <= num_bytes:
            self._counted += COUNTED_BYTES
            self._count()


def _look(task: IndexTask, tar: "_Tar", meter: _Meter) -> Found:
    keys: list[bytes] = []
    places: dict[str, list[tuple[int, int]]] = {"picture": [], "metadata": []}
    digests: list[bytes] = []
    rejects: list[Reject] = []
    kinds_seen: set[str] = set()
    for key, sample in _samples(task.told, tar.descriptor).items():
        kinds_seen |= sample.keys()
        picture = _picture_of(task, key, sample)
        try:
            if picture is None:
                raise PhotoError("no_picture", "it has no picture")
            data = _judge(tar, picture, sample.get(METADATA), task.prep)
        except PhotoError as error:
            rejects.append(Reject(f"{task.name}/{_text(key)}", error.reason))
        else:
            keys.append(key)
            places["picture"].append(picture)
            places["metadata"].append(sample.get(METADATA, (0, 0)))
            digests.append(sha256(data).digest()[:16])
        meter.reach(tar.summed)
    if not kinds_seen & set(task.prep.image):
        there = ", ".join(sorted(kinds_seen)[:10]) or "no samples"
        wanted = ", ".join(task.prep.image)
        raise UserError(
            f"{task.told} has no pictures ({wanted}), but {there}; name the right member with "
            "--image, or leave this shard out of --shards"
        )
    return Found(
        os.fstat(tar.descriptor).st_size,
        tar.digest(),
        as_keys(keys),
        {member: as_places(table) for member, table in places.items()},
        np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2),
        tuple(rejects),
    )


class _Tar:
    """A tar that is read nearly front to back, and summed on the way: no byte is read twice."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._sum, self.summed = sha256(), 0  # of the first so many bytes

    def read(self, place: tuple[int, int]) -> bytes:
        """Return the bytes at an offset, so many."""
        offset, size = place
        if offset < self.summed:
            return os.pread(self.descriptor, size, offset)
        self._sum_to(offset)
        data = os.pread(self.descriptor, size, offset)
        self._sum.update(data)
        self.summed += len(data)
        return data

    def digest(self) -> str:
        """Return the SHA-256 of the whole, in hex."""
        self._sum_to(os.fstat(self.descriptor).st_size)
        return self._sum.hexdigest()

    def _sum_to(self, end: int) -> None:
        while self.summed < end:
            size = min(_BLOCK, end - self.summed)
            data = os.pread(self.descriptor, size, self.summed)
            if not data:
                return  # it has shrunk: its size will tell
            self._sum.update(data)
            self.summed += len(data)


def _samples(place: str, tar: int) -> dict[bytes, Members]:
    """Return members by key, grouped as webdataset does: adjacent ones of a key are a sample."""
    samples: dict[bytes, Members] = {}
    current = None
    try:
        for member in members(tar):
            key, kind = key_and_kind(member.name)
            base = key.rpartition(b"/")[2]
            if member.kind != _FILE or not base or not kind or _NO_SAMPLE.match(member.name):
                continue
            if key != current and key in samples:
                raise UserError(
                    f"{place} has two samples of one key, {_text(key)}: only one of them could be "
                    "named; write the shard again, each key once and its members side by side"
                )
            current = key
            sample = samples.setdefault(key, {})
            if kind.lower() in sample:
                raise UserError(f"{place} has {_text(member.name)} twice; write the shard again")
            sample[kind.lower()] = (member.offset, member.size)
    except DamagedTarError as error:
        raise UserError(f"{place} is damaged, or no tar: {error}; copy it again") from error
    return samples


def _picture_of(task: IndexTask, key: bytes, sample: Members) -> tuple[int, int] | None:
    there = [kind for kind in task.prep.image if kind in sample]
    if len(there) > 1:
        raise UserError(
            f"{task.told}: sample {_text(key)} has {' and '.join(there)}; say which with "
            f"--image {there[0]}"
        )
    return sample[there[0]] if there else None


def _judge(
    tar: "_Tar", picture: tuple[int, int], metadata: tuple[int, int] | None, prep: IndexPrep
) -> bytes:
    """Return the picture's file. Raises PhotoError with the reason why it is left out."""
    if picture[1] > MAX_BYTES:
        raise PhotoError("too_many_bytes", f"{picture[1]:,} bytes; at most {MAX_BYTES:,} are read")
    if prep.licenses is not None:
        _check_license(tar.read(metadata) if metadata else b"", prep.licenses)
    data = tar.read(picture)
    size, spread = _measure(data, prep.min_chroma)
    if min(size) < prep.min_short_side:
        raise PhotoError("too_small", f"{size[0]} x {size[1]} pixels")
    if spread < prep.min_chroma:
        raise PhotoError("near_gray", f"chroma spread {spread:.1f} of 255")
    return data


def _measure(data: bytes, min_chroma: float) -> tuple[tuple[int, int], float]:
    """Return a picture's size in pixels, and its chroma spread or less where that is enough.

    Means of pixels show less spread than the pixels do. So a picture with _CLEARLY times the least
    in a handful of them needs no second look: 99 % of photographs in color. (The decoder's means
    are taken before it clips, and may show more: at most 2 % in 2,258 photographs, measured.)
    Raises PhotoError.
    """
    eighth = open_eighth(data)
    if eighth is not None:
        glance, size, to_srgb = eighth
        spread = chroma_spread(to_srgb(glance.reduce(_GLANCE)))
        if glance.mode == "L" or spread >= _CLEARLY * min_chroma:
            return size, spread
    photo, size = open_reduced(data, MEASURED_SIDE)
    reduction = min(photo.size) // MEASURED_SIDE
    return size, chroma_spread(photo.reduce(reduction) if reduction > 1 else photo)


def _check_license(metadata: bytes, wanted: tuple[str, ...]) -> None:
    """Raise PhotoError unless a sample's JSON says one of the licenses that are wanted."""
    terms = license_terms(metadata)
    if not terms:
        raise PhotoError("license_unknown", "its JSON names no license")
    if not {term.lower() for term in terms} & {term.lower() for term in wanted}:
        raise PhotoError("license", f"it is under {terms[0]}")


@contextmanager
def _opened(place: str, meter: _Meter) -> Iterator[int]:
    """Return a descriptor of a file with the tar's bytes. Raises UserError: place and cause."""
    if place.startswith(PIPE) or is_url(place):
        with TemporaryFile(prefix="index-") as file:
            _receive(place, file, meter)
            yield file.fileno()
        return
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _receive(place: str, file: IO[bytes], meter: _Meter) -> None:
    """Write what lies at a URL, or a command prints, to `file`."""
    for tries_left in reversed(range(_TRIES)):
        try:
            file.seek(0)
            file.truncate()
            for chunk in _piped(place) if place.startswith(PIPE) else chunks(place):
                file.write(chunk)
                meter.reach(file.tell())
            file.flush()
            return
        except FetchError as error:
            if not (error.passing and tries_left):
                raise
        except OSError as error:
            raise UserError(
                f"{gettempdir()} cannot hold a tar while it is read: {error.strerror}; name a "
                "folder with room by the environment variable TMPDIR"
            ) from error


def _piped(place: str) -> Iterator[bytes]:
    """Return what the command prints. Raises UserError where it fails."""
    try:
        with import_webdataset().gopen(place) as stream:
            while chunk := stream.read(2**20):
                yield chunk
    except OSError as error:  # whose text holds the command, with any token in it
        raise UserError(
            "a command of --shards 'pipe:…' failed; what it said stands above. Try it by itself"
        ) from error


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
