"""A thing on disk is complete or absent: written aside, flushed, renamed."""

import errno
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pix2pix.errors import UserError

# What fsync(2) of a folder gives where the file system does not offer it.
NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)


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
    """Make a file, or the names in a folder, durable.

    Some file systems (gcsfuse, shared folders of virtual machines) can't flush a folder: then what
    they offer must do, which is said once.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED or not path.is_dir():
            raise
        _say_once(path, error)
    finally:
        os.close(descriptor)


def check_renames(folder: Path) -> None:
    """Raise UserError where `folder` lies on a file system that can't rename a folder with files.

    Checkpoints become complete by such a rename; object stores that are mounted as folders often
    have none.
    """
    before, after = folder / f".rename.{os.getpid()}", folder / f".renamed.{os.getpid()}"
    before.mkdir(exist_ok=True)
    (before / "file").touch()
    try:
        os.rename(before, after)
    except OSError as error:
        raise UserError(
            f"the file system of {folder} can't rename folders ({error.strerror}), and a rename is "
            "what makes a checkpoint complete or absent; choose a --run_dir elsewhere"
        ) from error
    finally:
        shutil.rmtree(before, ignore_errors=True)
        shutil.rmtree(after, ignore_errors=True)


_said: list[Path] = []


def _say_once(folder: Path, error: OSError) -> None:
    """Warn of a file system, once; a worker leaves that to the process that started it."""
    is_worker = multiprocessing.parent_process() is not None
    if _said or is_worker or os.environ.get("RANK", "0") != "0":
        return
    _said.append(folder)
    print(
        f"the file system of {folder} does not flush folders ({error.strerror}):\n"
        "after a loss of power the newest files may be missing",
        file=sys.stderr,
        flush=True,
    )
