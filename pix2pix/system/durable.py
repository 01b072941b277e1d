"""A thing on disk is complete or absent: written aside, flushed, renamed."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def aside(path: Path) -> Path:
    """Return the hidden temporary path for `path`: same folder, one per process."""
    return path.parent / f".{path.name}.{os.getpid()}.tmp"


def leftovers(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the temporary files of any process in `folder`: (file, final name)."""
    for path in sorted(folder.glob(".*.tmp")):
        name, _, process = path.name[1:].removesuffix(".tmp").rpartition(".")
        if process.isdecimal():
            yield path, name


def publish(path: Path, data: bytes) -> None:
    """Write `data` to `path`, completely or not at all, even if power fails."""
    try:
        aside(path).write_bytes(data)
        publish_aside(path)
    except BaseException:
        aside(path).unlink(missing_ok=True)
        raise


def publish_aside(path: Path) -> None:
    """Make the finished file `aside(path)` durable, then rename it to `path`."""
    flush(aside(path))
    os.replace(aside(path), path)
    flush(path.parent)  # the rename itself


def publish_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` as indented JSON, completely or not at all."""
    publish(path, (json.dumps(content, indent=2) + "\n").encode())


def flush(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
