"""A node's cache of shards: each is fetched once, checked, and complete or absent (no torch).

Files are named by their content, so a set that moves, or is shared by two trainings, is not fetched
again. Which shards are fetched ahead and which leave is the order's to say (prefetch.py).
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from errno import EDQUOT, ENOSPC
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from pix2pix.data.fetch import FetchError, chunks
from pix2pix.data.shards import Shard
from pix2pix.errors import StorageError, UserError
from pix2pix.system.durable import flush
from pix2pix.system.reading import TRANSIENT

MARK = "needs-"  # files that begin so name the tars that a training uses now
TRIES = 3
SHARE_OF_FREE = 0.8
_LEFT_SECONDS = 3600  # a file that nobody has written to for so long is given up
_DEFAULTS = ("PIX2PIX_CACHE", "SLURM_TMPDIR")  # else the system's temporary folder; never the home


def cache_folder(wanted: str | None) -> Path:
    """Return the cache's folder on this node: variables of the environment are expanded here.

    wanted: --shards_cache; None: the default. Raises UserError where a variable is not set.
    """
    if wanted is None:
        named = next((os.environ[name] for name in _DEFAULTS if os.environ.get(name)), None)
        user = os.getuid() if hasattr(os, "getuid") else ""
        return Path(named or tempfile.gettempdir()) / f"pix2pix-shards-{user}"
    expanded = os.path.expandvars(wanted)
    if "$" in expanded:
        raise UserError(
            f"--shards_cache {wanted}: this node has no such variable; set it, or name a folder"
        )
    return Path(expanded)


class ShardCache:
    """Shards in a folder of this node, `most_bytes` at most but for what is in use.

    A process that needs one that is not there fetches it, whatever that limit says: nothing that
    is needed is refused. What nobody needs makes room then (`trim`).
    fetched_bytes, fetch_seconds: of this process.
    """

    def __init__(self, folder: Path, most_gib: float | None = None) -> None:
        """most_gib: None takes 80 % of what is free. Raises UserError: no folder to write to."""
        self.folder = folder
        self.fetched_bytes = 0
        self.fetch_seconds = 0.0
        self._trimmed_at_bytes = 0
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()
            free = shutil.disk_usage(folder).free
        if most_gib is None:
            self.most_bytes = int(SHARE_OF_FREE * free) + sum(self.files().values())
        else:
            self.most_bytes = int(most_gib * 2**30)

    def path(self, shard: Shard) -> Path:
        """Return where the shard's tar is, once it is there."""
        return self.folder / f"{shard.sha256}.tar"

    def index_path(self, shard: Shard) -> Path:
        """Return where the shard's index is, once it is there."""
        return self.folder / f"{shard.sha256}.{(shard.index_sha256 or 'pairs')[:16]}.index.npz"

    def has(self, shard: Shard) -> bool:
        """Return True if the shard is there, whole."""
        return _size(self.path(shard)) == shard.bytes

    def get(self, place: str, shard: Shard) -> Path:
        """Return the shard's tar; fetches it from `place` unless it is there.

        Of any number of processes one fetches, the others wait. Raises UserError: place and cause.
        """
        path = self.path(shard)
        if not self.has(shard):
            with self.locked(path.name) as alone:
                if not self.has(shard):
                    self._remove_left(path, alone)
                    self._try(place, path, shard.bytes, shard.sha256)
        return path

    def get_index(self, place: str, shard: Shard) -> Path | None:
        """Return the shard's index, fetched from `place`; None if there is none, and need not be.

        The index of prepared shards has no sum in the manifest: it says itself whose it is.
        """
        path = self.index_path(shard)
        if not path.exists():
            with self.locked(path.name) as alone:
                if not path.exists():
                    self._remove_left(path, alone)
                    try:
                        self._try(place, path, None, shard.index_sha256)
                    except FetchError:
                        if shard.index_sha256:
                            raise
                        return None
        return path

    def files(self) -> dict[str, int]:
        """Size of every tar that is there, by the name of its file."""
        with os.scandir(self.folder) as entries:
            tars = [entry for entry in entries if entry.name.endswith(".tar")]
            return {entry.name: _size(Path(entry.path)) or 0 for entry in tars}

    def remove(self, name: str) -> None:
        """Remove a tar; who has it open reads on."""
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()

    def trim(self, kept: Shard) -> None:
        """Remove tars until they are `most_bytes`: first those that came first, none in use.

        For a process that has fetched `kept` by itself: the order of need is not known to it. Does
        nothing if nothing was fetched since the last time.
        """
        if self.fetched_bytes == self._trimmed_at_bytes:
            return
        self._trimmed_at_bytes = self.fetched_bytes
        there = self.files()
        excess = sum(there.values()) - self.most_bytes
        if excess <= 0:
            return
        free = there.keys() - self.in_use() - {self.path(kept).name}
        for name in sorted(free, key=lambda name: _fetched_at(self.folder / name)):
            self.remove(name)
            excess -= there[name]
            if excess <= 0:
                return

    def in_use(self, but: Path | None = None) -> set[str]:
        """Return the tars that live trainings say they use now; marks of dead ones are removed.

        but: the mark of this one, which is not looked at.
        """
        needed: set[str] = set()
        for mark in self.folder.glob(f"{MARK}*.json"):
            if mark == but:
                continue
            with contextlib.suppress(OSError, ValueError, NotImplementedError):
                if _is_alive(mark):
                    needed.update(json.loads(mark.read_bytes()))
                else:
                    mark.unlink()
                    mark.with_suffix(".lock").unlink()
        return needed

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[bool]:
        """Keep other processes out; False: a file system without locks, two may fetch the same."""
        lock = FileLock(self.folder / f"{name}.lock")
        try:
            lock.acquire()
        except (OSError, NotImplementedError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _remove_left(self, path: Path, alone: bool) -> None:
        """Remove what one who was killed left; without a lock another may be writing it now."""
        for left in self.folder.glob(f".{path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                if alone or time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                    left.unlink()

    def _try(self, place: str, path: Path, num_bytes: int | None, digest: str | None) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._fetch(place, path, num_bytes, digest)
                return
            except FetchError as error:
                if not error.passing or not left:
                    raise

    def _fetch(self, place: str, path: Path, num_bytes: int | None, digest: str | None) -> None:
        """Fetch a file aside, compare it with what the manifest says, rename it."""
        started = time.perf_counter()
        aside = self.folder / f".{path.name}.{uuid.uuid4().hex}.tmp"
        found, count = sha256(), 0
        try:
            with self._writing(), aside.open("wb") as file:
                for chunk in chunks(place):
                    count += len(chunk)
                    found.update(chunk)
                    file.write(chunk)
                    if num_bytes is not None and count > num_bytes:
                        break
            if num_bytes is not None and count != num_bytes:
                more = "more than" if count > num_bytes else f"{count:,} of"
                what = "has grown" if count > num_bytes else "is cut short"
                raise FetchError(f"{place} {what}: {more} {num_bytes:,} bytes", passing=True)
            if digest is not None and found.hexdigest() != digest:
                raise FetchError(
                    f"{place} was altered since its manifest was written: its SHA-256 is another; "
                    "put the right file there, or index or prepare the shards again",
                    passing=True,
                )
            with self._writing():
                flush(aside)
                os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        self.fetched_bytes += count
        self.fetch_seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in TRANSIENT:
                raise StorageError(
                    f"the file system of {self.folder} does not answer: {error.strerror}"
                ) from error
            full = error.errno in (ENOSPC, EDQUOT)
            cause = "it is full; make room, or" if full else f"{error.strerror};"
            raise UserError(
                f"the cache {self.folder} cannot be written: {cause} name another folder with "
                "--shards_cache"
            ) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _fetched_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # somebody else removed it
        return 0.0


def _is_alive(mark: Path) -> bool:
    lock = FileLock(mark.with_suffix(".lock"), timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True
