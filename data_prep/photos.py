"""Where photographs come from: a folder, or the sample photographs that Python packages carry."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pix2pix.errors import UserError
from pix2pix.photos.finding import is_system_folder
from pix2pix.photos.kinds import EXTENSIONS
from pix2pix.photos.photo_error import PhotoError

# 512 MiB: a photograph of `photo.MAX_PIXELS` has 400 MB as bare RGB. What a file or a member of an
# archive claims beyond that must not fill the memory.
MAX_BYTES = 2**29

OTHER_KIND = "other_kind"  # reason of files that are no photographs by their names

T = TypeVar("T")

# These say something of the one file. Any other error (EIO, ESTALE, ETIMEDOUT, too many open files)
# says something of the machine, and may pass.
_OF_THE_FILE = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    )
)
_PAUSES_SECONDS = (0.1, 1.0, 5.0)  # between attempts: a network file system fails over in seconds


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph of a source.

    name: its path within the source, POSIX; bytes that are no UTF-8 stand in it as Python has them
    in paths (surrogate escapes). size: of the file, in bytes. place: where its source finds it, for
    nobody else to read. reject: why it is left out, where that is known without opening it.
    metadata: what is known of it beyond the file, for KEY.json.
    """

    name: str
    size: int
    place: tuple[int, ...] = ()
    reject: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A heap of photographs. Picklable: each worker process gets a copy and opens its own files."""

    def list_files(self) -> list[Photo]:
        """Return every file that is not hidden, sorted by the bytes of its name.

        Those of other kinds than photographs have the reason OTHER_KIND.

        Raises:
            UserError: no photograph is among them.
        """

    def list_photos(self) -> list[Photo]:
        """Return the photographs among the files; raises UserError if there is none."""

    def read(self, photo: Photo) -> bytes:
        """Return the file, in any thread; raises OSError, or PhotoError with the reason."""


@dataclass(frozen=True)
class FolderSource:
    """The photographs of a folder and of the folders in it, links followed."""

    root: Path

    def list_photos(self) -> list[Photo]:
        """Return those that are of a photograph's kind, by their names."""
        return without_others(self.list_files())

    def list_files(self) -> list[Photo]:
        """Return all but hidden files; pipes, sockets and devices have a reason to reject."""
        if not self.root.is_dir():
            raise UserError(f"--photos {self.root}: there is no such folder, zip or tar")
        return sort_files(self.root, _walk(self.root))

    def read(self, photo: Photo) -> bytes:
        """Return the file, of the size that it was listed with; raises OSError."""
        with (self.root / photo.name).open("rb") as file:
            return file.read(photo.size)


def is_visible(name: str) -> bool:
    """Return True unless a POSIX path is hidden, or lies in a hidden or system folder."""
    return all(map(_is_visible, name.split("/")))


def without_others(files: Iterable[Photo]) -> list[Photo]:
    """Return `files` but for those of other kinds than photographs."""
    return [file for file in files if file.reject != OTHER_KIND]


def sort_files(path: Path, files: Iterable[Photo]) -> list[Photo]:
    """Return `files` by the bytes of their names, those of other kinds marked as OTHER_KIND.

    Raises:
        UserError: no photograph is among them; it names `path`.
    """
    ordered = sorted(map(_mark_other, files), key=lambda photo: os.fsencode(photo.name))
    if not without_others(ordered):
        raise UserError(
            f"--photos {path}: no photographs in it or below (files ending in "
            f"{', '.join(EXTENSIONS)}; an archive in it is not opened)"
        )
    return ordered


def digest_photos(photos: Iterable[Photo]) -> str:
    """Return the identity of a list of photographs, in hex: names and sizes, not places."""
    lines = (os.fsencode(photo.name) + b"\0%d\n" % photo.size for photo in photos)
    return sha256(b"".join(lines)).hexdigest()[:16]  # 64 bits tell apart, and can be read


def read_photo(source: Source, photo: Photo) -> bytes:
    """Return the file of `photo`.

    Raises PhotoError with the reason why not: `photo.reject`, too_many_bytes, unreadable, those of
    the source. Raises UserError where the fault is not the photograph's, and lasts.
    """
    if photo.reject:
        raise PhotoError(photo.reject, "known to be left out")
    if photo.size > MAX_BYTES:
        raise PhotoError("too_many_bytes", f"{photo.size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        return _patiently(lambda: source.read(photo), photo.name)
    except OSError as error:
        raise PhotoError("unreadable", f"cannot be read: {error}") from error


def _patiently(read: Callable[[], T], name: str) -> T:
    """Call `read`, again where the machine was at fault: else the photograph were lost for good."""
    pauses = iter(_PAUSES_SECONDS)
    while True:
        try:
            return read()
        except OSError as error:
            if error.errno in _OF_THE_FILE:
                raise
            pause = next(pauses, None)
            if pause is None:
                raise UserError(
                    f"reading {name} failed {len(_PAUSES_SECONDS) + 1} times: {error.strerror}; "
                    "when disk or network are well, run the same command again: what is done "
                    "stays done"
                ) from error
        time.sleep(pause)


def _mark_other(file: Photo) -> Photo:
    is_photo = file.name.lower().endswith(EXTENSIONS)  # as the name says; any case
    return file if is_photo else replace(file, reject=OTHER_KIND)


def _is_visible(name: str) -> bool:
    """Return False for a part of a path that is hidden, or a folder of the system."""
    return name == ".." or (not name.startswith(".") and not is_system_folder(name))


def _walk(root: Path) -> Iterator[Photo]:
    seen = set()  # a link to a folder above would lead round and round
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Sorted: which of two ways to one folder is taken must not vary.
        folders[:] = sorted(filter(_is_visible, folders), key=os.fsencode)
        for file in filter(is_visible, files):
            path = Path(folder, file)
            yield _look_at(path, path.relative_to(root).as_posix())


def _refuse(error: OSError) -> None:
    """Photographs of a folder that cannot be listed would be left out without a word."""
    raise UserError(f"the folder {error.filename} cannot be listed: {error.strerror}; mend that")


def _look_at(path: Path, name: str) -> Photo:
    """Return the photograph at `path`; a link to nothing has size 0, and is unreadable later."""
    try:
        status = _patiently(path.stat, str(path))
    except OSError:
        return Photo(name, 0)
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
        return Photo(name, 0, reject="not_a_file")
    return Photo(name, status.st_size)


@dataclass(frozen=True)
class PackagedPhoto:
    """A photograph that a package carries in its wheel, and what the package says of its rights."""

    name: str
    package: str
    file: str
    credit: str

    @property
    def path(self) -> Path:
        """The file; raises UserError where the package is not installed or lacks it."""
        spec = find_spec(self.package)  # finds the folder without importing the package
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / self.file
            if path.is_file():
                return path
        raise UserError(
            f"the photograph {self.file} of the package {self.package} is not installed; "
            "pip install -e '.[demo]'"
        )


_BUECHELE = "CC BY 2.0, by danielbuechele, flickr.com/photos/danielbuechele/6061409035"
_VULTILION = "CC BY 2.0, by vultilion, flickr.com/photos/vultilion/6056698931"

# Photographs of things that people photograph. Left out: stained tissue, a retina, a star field
# (nearly all black), and the right eye's view of the motorcycle, which is the left one's again.
COLOR_PHOTOS = (
    PackagedPhoto(
        "astronaut", "skimage", "data/astronaut.png", "public domain, NASA, flic.kr/p/r9qvLn"
    ),
    PackagedPhoto("chelsea", "skimage", "data/chelsea.png", "CC0, by Stefan van der Walt"),
    PackagedPhoto("china", "sklearn", "datasets/images/china.jpg", _BUECHELE),
    PackagedPhoto("coffee", "skimage", "data/coffee.png", "CC0, by Rachel Michetti"),
    PackagedPhoto("flower", "sklearn", "datasets/images/flower.jpg", _VULTILION),
    PackagedPhoto(
        "motorcycle",
        "skimage",
        "data/motorcycle_left.png",
        "Middlebury 2014 stereo benchmark, vision.middlebury.edu/stereo/data/scenes2014: "
        "D. Scharstein et al., GCPR 2014; no license named",
    ),
    PackagedPhoto(
        "rocket",
        "skimage",
        "data/rocket.jpg",
        "public domain, SpaceX, flickr.com/photos/spacexphotos/16511594820",
    ),
)

# Captured in gray. Left out: brick, grass and gravel, which were color once.
GRAY_PHOTOS = (
    PackagedPhoto("camera", "skimage", "data/camera.png", "CC0, by Lav Varshney"),
    PackagedPhoto(
        "coins",
        "skimage",
        "data/coins.png",
        "no known copyright restrictions, Brooklyn Museum Collection",
    ),
    PackagedPhoto("moon", "skimage", "data/moon.png", "no source or license named"),
)
