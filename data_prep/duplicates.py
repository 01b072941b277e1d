"""Photographs that are copies of others, byte for byte: the first in path order is kept.

Else a training photograph could be among those that are kept out for validation, too.
"""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from data_prep.photos import Photo, Source, digest_photos, read_photo
from data_prep.shard_file import disk_errors
from pix2pix.cli.progress import progress
from pix2pix.photos.photo import PhotoError
from pix2pix.system.durable import publish


def reject_duplicates(
    source: Source, photos: Sequence[Photo], root: Path, num_threads: int
) -> list[Photo]:
    """Return `photos` with the reason "duplicate" on each that has the bytes of an earlier one.

    Those that are left out for another reason count for nothing. Only files that share their size
    are read. What was found is kept in a hidden file of the folder `root`, so that a second run, or
    another machine's, does not read them again. Raises UserError.
    """
    kept = [index for index, photo in enumerate(photos) if not photo.reject]
    known = root / f".duplicates-{digest_photos(photos[index] for index in kept)}.json"
    copies = _read(known, len(kept))
    if copies is None:
        copies = _find(source, [photos[index] for index in kept], num_threads)
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            publish(known, json.dumps(copies).encode())
    marked = list(photos)
    for copy in copies:
        marked[kept[copy]] = replace(marked[kept[copy]], reject="duplicate")
    return marked


def _find(source: Source, photos: Sequence[Photo], num_threads: int) -> list[int]:
    """Return the indices of copies. Empty files are none: they have a reason of their own."""
    sizes = Counter(photo.size for photo in photos)
    candidates = [i for i, photo in enumerate(photos) if photo.size and sizes[photo.size] > 1]
    first: dict[bytes, int] = {}
    copies = []
    pool = ThreadPoolExecutor(num_threads)  # reading and hashing both let other threads run
    try:
        with progress("files", len(candidates), title="comparing") as bar:
            digests = pool.map(lambda index: _digest(source, photos[index]), candidates)
            for index, digest in zip(candidates, digests, strict=True):
                if digest and first.setdefault(digest, index) != index:
                    copies.append(index)
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for all of them
    return copies


def _digest(source: Source, photo: Photo) -> bytes:
    """Return the SHA-256 of a file; b"" for one that cannot be read: it is left out for that."""
    try:
        return sha256(read_photo(source, photo)).digest()
    except PhotoError:
        return b""


def _read(known: Path, num_photos: int) -> list[int] | None:
    """Return what an earlier run found; None where there is nothing that this program wrote."""
    try:
        copies = json.loads(known.read_bytes())
    except (OSError, ValueError):
        return None
    good = isinstance(copies, list) and all(copy in range(num_photos) for copy in copies)
    return copies if good else None
