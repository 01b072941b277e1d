"""Where photographs come from: a folder, or the sample photographs that Python packages carry."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from pix2pix.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph of a source.

    name: its path within the source, POSIX; bytes that are no UTF-8 stand in it as Python has them
    in paths (surrogate escapes). size: of the file, in bytes.
    """

    name: str
    size: int


class Source(Protocol):
    """A heap of photographs. Picklable: each worker process gets a copy and opens its own files."""

    def list_photos(self) -> list[Photo]:
        """Every photograph, sorted by the bytes of its name; raises UserError if there is none."""

    def read(self, photo: Photo) -> bytes:
        """The file as it is; raises OSError."""


@dataclass(frozen=True)
class FolderSource:
    """The photographs of a folder and of the folders in it, links followed."""

    root: Path

    def list_photos(self) -> list[Photo]:
        """Files with the extension of a photograph, in any case; hidden ones are left out."""
        if not self.root.is_dir():
            raise UserError(f"--photos {self.root}: there is no such folder")
        photos = [Photo(name, size) for name, size in _walk(self.root)]
        if not photos:
            raise UserError(
                f"--photos {self.root}: no photographs in it or below "
                f"(files ending in {', '.join(EXTENSIONS)})"
            )
        return sorted(photos, key=lambda photo: os.fsencode(photo.name))

    def read(self, photo: Photo) -> bytes:
        """The file as it is; raises OSError."""
        return (self.root / photo.name).read_bytes()


def digest_photos(photos: list[Photo]) -> str:
    """Identity of a list of photographs, in hex: their names and sizes, not where they lie."""
    lines = (os.fsencode(photo.name) + b"\0%d\n" % photo.size for photo in photos)
    return sha256(b"".join(lines)).hexdigest()[:16]  # 64 bits tell apart, and can be read


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """(POSIX path below `root`, bytes) of each photograph."""
    seen = set()  # a link to a folder above would lead round and round
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort(key=os.fsencode)  # which of two ways to one folder is taken must not vary
        for file in files:
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                path = Path(folder, file)
                yield path.relative_to(root).as_posix(), _size(path)


def _refuse(error: OSError) -> None:
    """Photographs of a folder that cannot be listed would be left out without a word."""
    raise UserError(f"the folder {error.filename} cannot be listed: {error.strerror}; mend that")


def _size(path: Path) -> int:
    """Bytes of a file; 0 for a link to nothing, which then counts as unreadable."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


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
            "pip install 'pix2pix[demo]'"
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
        "D. Scharstein et al., GCPR 2014; no licence named",
    ),
    PackagedPhoto(
        "rocket",
        "skimage",
        "data/rocket.jpg",
        "public domain, SpaceX, flickr.com/photos/spacexphotos/16511594820",
    ),
)

# Captured in gray. Left out: brick, grass and gravel, which were colour once.
GRAY_PHOTOS = (
    PackagedPhoto("camera", "skimage", "data/camera.png", "CC0, by Lav Varshney"),
    PackagedPhoto(
        "coins",
        "skimage",
        "data/coins.png",
        "no known copyright restrictions, Brooklyn Museum Collection",
    ),
    PackagedPhoto("moon", "skimage", "data/moon.png", "no source or licence named"),
)
