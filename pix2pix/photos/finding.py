"""Finds photographs: files, folders with their sub-folders, globs, and what lies between them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from pix2pix.photos.kinds import EXTENSIONS

# Folders of file systems and of the programs that look after them, not of their owners.
_SYSTEM_FOLDERS = frozenset(
    (
        "$recycle.bin",
        "@eadir",
        "#recycle",
        "#snapshot",
        "__macosx",
        "lost+found",
        "recycler",
        "system volume information",
    )
)


@dataclass
class Found:
    """What lies at some paths.

    Attributes:
        root: the folder that names are relative to.
        names: of photographs, sorted by their bytes.
        ignored: names of files of other kinds, met in folders.
        unlisted: (folder, reason) of those that cannot be listed.
    """

    root: Path
    names: list[Path] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)
    unlisted: list[tuple[Path, str]] = field(default_factory=list)


def find_photos(paths: Sequence[Path]) -> Found:
    """Return the photographs at files, in folders and below, and that globs match.

    Hidden files and folders and those of the system are passed over, links are followed. Of several
    paths, names are relative to the folder that all of them lie in.
    """
    found = [_find(path) for path in paths]
    if len(found) == 1:
        return found[0]
    root = Path(os.path.commonpath([os.path.abspath(part.root) for part in found]))
    merged = Found(root)
    names, ignored = set(), set()
    for part in found:
        below = Path(os.path.abspath(part.root)).relative_to(root)
        names |= {below / name for name in part.names}
        ignored |= {below / name for name in part.ignored}
        merged.unlisted += part.unlisted
    merged.names = sorted(names, key=os.fsencode)
    merged.ignored = sorted(ignored - names, key=os.fsencode)
    return merged


def is_system_folder(name: str) -> bool:
    """Return True for a folder that a file system or its programs keep for themselves."""
    return name.lower() in _SYSTEM_FOLDERS


def _find(path: Path) -> Found:
    if path.is_dir():
        found = Found(path)
        for file in sorted(_walk(path, found), key=os.fsencode):
            is_photo = file.suffix.lower() in EXTENSIONS
            (found.names if is_photo else found.ignored).append(file)
        return found
    if os.path.lexists(path):  # before the glob: a name may have brackets in it
        return Found(path.parent, [Path(path.name)])
    root = next(folder for folder in path.parents if folder.is_dir())
    matches = set(glob(str(path.relative_to(root)), root_dir=root, recursive=True))
    files = [Path(match) for match in sorted(matches, key=os.fsencode)]
    return Found(root, [file for file in files if (root / file).is_file()])


def _walk(root: Path, found: Found) -> Iterator[Path]:
    def tell(error: OSError) -> None:
        found.unlisted.append((Path(error.filename), error.strerror or str(error)))

    seen = set()  # a link to a folder above would lead round and round
    for folder, folders, files in os.walk(root, onerror=tell, followlinks=True):
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not is_system_folder(name)
        )
        for file in files:
            if not file.startswith("."):
                yield Path(folder, file).relative_to(root)
