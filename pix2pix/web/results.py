"""What the page makes of uploads: pictures to show, and a file or a zip to download."""

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.photos.files import target_suffix
from pix2pix.photos.photo import open_picture
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import Picture, read_gray
from pix2pix.photos.rows import to_8_bits
from pix2pix.photos.saving import save_pages, save_photo

# 50 megapixels take some 10 s on one core and 0.7 GB: what a stranger may ask for at most, of one
# page. Photographs at once, and pages of one.
MAX_PIXELS = 50_000_000
MAX_PHOTOS = 20
MAX_PAGES = 20

SHOWN_SIDE = 1600  # pixels; the download has all of them


@dataclass(frozen=True)
class Colored:
    """Files of a colored photograph.

    Attributes:
        gray: the photograph as it is shown.
        colored: its colored version as it is shown.
        download: at full size.
        size: of the first page of the download, in pixels.
        notes: what was not as it was meant.
    """

    gray: Path
    colored: Path
    download: Path
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Upload:
    """What became of the photographs of one upload.

    Attributes:
        colored: those that could be colored.
        download: the file of the only one, or a zip of all; None for none.
        problems: a sentence for each that could not, and for what was not as it was meant.
    """

    colored: tuple[Colored, ...]
    download: Path | None
    problems: tuple[str, ...]


def color_upload(
    colorizer: Colorizer, photos: Sequence[Path], saturation: float, folder: Path
) -> Upload:
    """Color the photographs of an upload; one that cannot be colored leaves the others alone.

    Args:
        colorizer: the model.
        photos: files.
        saturation: as `Colorizer.colorize`.
        folder: gets new folders with the results.
    """
    colored, problems = [], []
    for photo in photos[:MAX_PHOTOS]:
        try:
            result = color_file(colorizer, photo, saturation, folder)
        except PhotoError as error:
            problems.append(f"{photo.name}: {error}")
        else:
            colored.append(result)
            problems += [f"{photo.name}: {note}" for note in result.notes]
    if len(photos) > MAX_PHOTOS:
        left = len(photos) - MAX_PHOTOS
        problems.append(f"{MAX_PHOTOS} photographs are colored at once; {left} are left out")
    download = colored[0].download if colored else None
    if len(colored) > 1:
        download = _zip([result.download for result in colored], folder)
    return Upload(tuple(colored), download, tuple(problems))


def color_file(colorizer: Colorizer, photo: Path, saturation: float, folder: Path) -> Colored:
    """Color a file as scripts/colorize.py does, to the format that comes back there.

    Args:
        colorizer: the model.
        photo: a file.
        saturation: as `Colorizer.colorize`.
        folder: gets a new folder with the results.

    Raises:
        PhotoError: it cannot be colored.
    """
    picture = open_picture(photo, MAX_PIXELS)
    try:
        if picture.num_pages > MAX_PAGES:
            message = f"{picture.num_pages} pages; at most {MAX_PAGES} are colored here"
            raise PhotoError("too_many_pages", message)
        size = picture.page(0).upright_size  # raises before there is a folder
        results = Path(tempfile.mkdtemp(dir=folder))
        download = results / f"{photo.stem}.colored{target_suffix(photo)}"
        shown = (results / "gray.jpg", results / "colored.jpg")
        pages = _pages(colorizer, picture, saturation, shown)
        lost = save_pages(pages, download, picture.metadata, picture.num_pages)
        return Colored(*shown, download, size, tuple(dict.fromkeys([*picture.notes, *lost])))
    finally:
        picture.close()


def _pages(
    colorizer: Colorizer, picture: Picture, saturation: float, shown: tuple[Path, Path]
) -> Iterator[np.ndarray]:
    """Yield the colored pages; `shown` become small pictures of the first."""
    for index in range(picture.num_pages):
        gray = read_gray(picture, index)
        colored = colorizer.colorize_array(gray, saturation)
        if index == 0:
            for pixels, file in zip((gray, colored), shown, strict=True):
                small = Image.fromarray(to_8_bits(pixels))
                small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
                save_photo(small, file)
        yield colored


def _zip(files: Sequence[Path], folder: Path) -> Path:
    """Return a zip of files, which are told apart by a number where their names are the same."""
    path = Path(tempfile.mkdtemp(dir=folder)) / "colored.zip"
    taken: set[str] = set()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed
        for file in files:
            name, number = file.name, 1
            while name in taken:
                number += 1
                name = f"{file.stem}-{number}{file.suffix}"
            taken.add(name)
            archive.write(file, name)
    return path
