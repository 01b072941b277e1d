"""One tar to be indexed, and what was found in it: kept until the manifest is written."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.shard_file import Reject, disk_errors
from data_prep.shard_list import PIPE
from pix2pix.data.index import Places
from pix2pix.system.durable import publish


@dataclass(frozen=True)
class IndexPrep:
    """Everything that decides what of the shards is taken, but for their own bytes.

    places: digest of the list of shards. The others are index_shards' options.
    """

    places: str
    num_shards: int
    image: tuple[str, ...]
    min_short_side: int
    min_chroma: float
    licenses: tuple[str, ...] | None


@dataclass(frozen=True)
class IndexTask:
    """One tar to look through.

    place: where it is read: a path, a URL, or a command after "pipe:". name, url: as the manifest
    names it.
    """

    root: Path
    place: str
    name: str
    url: str
    prep: IndexPrep

    @property
    def told(self) -> str:
        """The place as a message may name it: a command can hold a token."""
        return f"pipe:… of {self.name}" if self.place.startswith(PIPE) else self.place

    @property
    def found_file(self) -> Path:
        """Where what was found lies until the manifest is written."""
        return self.root / f"{self.name.removesuffix('.tar')}.found.npz"


@dataclass(frozen=True)
class Found:
    """What was found in a tar of `bytes` bytes and this SHA-256.

    keys: [N] bytes; places: members of the N samples that can be trained on, as `ShardIndex` has
    them; digests: [N, 2] uint64, of their pictures' files.
    """

    bytes: int
    sha256: str
    keys: NDArray[np.bytes_]
    places: Mapping[str, Places]
    digests: NDArray[np.uint64]
    rejects: tuple[Reject, ...]


def read_found(task: IndexTask) -> Found | None:
    """Return what an earlier run of the same task found; None where there is nothing of it."""
    try:
        with np.load(task.found_file, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["task"] != _identity(task):
                return None
            return Found(
                about["bytes"],
                about["sha256"],
                stored["keys"],
                {"picture": stored["picture"], "metadata": stored["metadata"]},
                stored["digests"],
                tuple(Reject(**reject) for reject in about["rejects"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def write_found(task: IndexTask, found: Found) -> None:
    """Keep what was found in `task.found_file`, complete or not at all. Raises UserError."""
    about: dict[str, Any] = {
        "task": _identity(task),
        "bytes": found.bytes,
        "sha256": found.sha256,
        "rejects": [asdict(reject) for reject in found.rejects],
    }
    file = io.BytesIO()
    np.savez(
        file,
        about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        keys=found.keys,
        digests=found.digests,
        picture=found.places["picture"],
        metadata=found.places["metadata"],
    )
    with disk_errors(task.root):
        publish(task.found_file, file.getvalue())


def _identity(task: IndexTask) -> list[Any]:
    """Return what decides what is found, as JSON gives it back. Of a local tar its size, too."""
    size = os.path.getsize(task.place) if os.path.exists(task.place) else None
    return [task.name, task.url, size, json.loads(json.dumps(asdict(task.prep)))]
