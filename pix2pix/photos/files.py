"""Photographs in, photographs out: find files, name and save what is made of them (no torch).

An input is never overwritten, and one that is broken does not stop the others.
"""

import errno
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError, luma, open_photo

# What is saved under its own extension, and how. The chroma is what was painted: 4:4:4 keeps it.
_JPEG: tuple[str, dict[str, Any]] = ("JPEG", {"quality": 95, "subsampling": "4:4:4"})
_TIFF: tuple[str, dict[str, Any]] = ("TIFF", {"compression": "tiff_lzw"})
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
# What is looked for in folders; a file or a glob may name anything.
EXTENSIONS = (*FORMATS, ".bmp", ".gif")
COMPARISON_SIDE = 1920  # pixels; two fit on a 4K screen, and into a WebP
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Task:
    """A photograph, and the file that its colored version becomes."""

    source: Path
    target: Path

    @property
    def comparison(self) -> Path:
        """The file of the photograph beside its colored version: a.jpg → a.compare.jpg."""
        return self.target.with_name(f"{self.target.stem}.compare{self.target.suffix}")


@dataclass(frozen=True)
class Plan:
    """What is to be colored into the folder `out`; ignored: files of other kinds in between."""

    tasks: list[Task]
    ignored: list[Path]
    out: Path
    compare: bool = False


@dataclass(frozen=True)
class Report:
    """What became of a plan; failures: the photographs that could not be colored."""

    plan: Plan
    failures: list[Path]

    def __str__(self) -> str:
        total = len(self.plan.tasks)
        # Names need not be UTF-8, but standard output refuses what is not.
        out = os.fsencode(self.plan.out).decode(errors="backslashreplace")
        text = f"{total - len(self.failures)} of {total} photographs colored, in {out}"
        if self.failures:
            text += f"; {len(self.failures)} failed, named above with the reason"
        if self.plan.ignored:
            kinds = ", ".join(sorted({path.suffix or "no extension" for path in self.plan.ignored}))
            text += f"; left alone for their extensions: {len(self.plan.ignored)} ({kinds})"
        return text


def plan_outputs(photos: Path, out: Path, compare: bool = False) -> Plan:
    """Decide what is colored and where it goes, before anything is written.

    photos: a file, a folder (with its sub-folders, hidden files left out, links followed) or a
    glob, where ** means any sub-folders. Outputs keep sub-folders and names below `out`; JPEG,
    PNG, WebP and TIFF keep their extension, others become .png.
    compare: whether each gets a comparison beside it, too.
    Raises UserError where there is nothing to color, where `out` cannot be a folder, and where
    outputs would come to lie among the inputs or on each other.
    """
    tasks, ignored = _name_outputs(photos, out)
    nearest = next(path for path in (out, *out.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"--out {out}: {nearest} is no folder that can be written to")
    _refuse_to_write_among_inputs(tasks, out)
    comparisons = {task.comparison for task in tasks} if compare else set()
    for task in tasks:
        if task.target in comparisons:
            raise UserError(
                f"{task.target} would be a photograph and a comparison; rename the photograph, or "
                "leave --compare out"
            )
    return Plan(tasks, ignored, out, compare)


def find_colorized(photos: Path, colorized: Path) -> list[Task]:
    """Those photographs of which the folder `colorized` holds the file that `plan_outputs` names.

    photos: a file, a folder or a glob, as there. Raises UserError where there is no photograph.
    """
    tasks, _ = _name_outputs(photos, colorized)
    return [task for task in tasks if task.target.is_file()]


def colorize_files(colorize: Callable[[Image.Image], Image.Image], plan: Plan) -> Report:
    """Color every photograph of a plan, with a progress bar; a broken one is named and left out.

    Pictures are upright sRGB without metadata: the orientation is applied, a color profile would
    be wrong for the new colors, and transparency is laid on white. Outputs of an earlier run are
    replaced. Raises UserError if the disk is full.
    """
    failures = []
    with tqdm(plan.tasks, desc="coloring", unit=" photos") as tasks:
        for task in tasks:
            try:
                photo = open_photo(task.source)
                colored = colorize(photo)
                save_photo(colored, task.target)
                if plan.compare:
                    save_photo(side_by_side(luma(photo), colored), task.comparison)
            except PhotoError as error:
                failures.append(task.source)
                tasks.write(f"{task.source}: {error}", file=sys.stderr)
    return Report(plan, failures)


def side_by_side(gray: Image.Image, colored: Image.Image) -> Image.Image:
    """Two pictures of one size beside each other, each reduced to at most 1920 px a side."""
    scale = min(1.0, COMPARISON_SIDE / max(gray.size))
    width, height = (max(1, round(side * scale)) for side in gray.size)
    pair = [p.resize((width, height), Image.Resampling.LANCZOS) for p in (gray, colored)]
    beside = Image.new("RGB", (2 * width, height))
    for column, picture in enumerate(pair):
        beside.paste(picture, (column * width, 0))
    return beside


def save_photo(photo: Image.Image, target: Path) -> None:
    """Save a picture completely or not at all; the format follows the extension.

    Raises PhotoError("unwritable") where it cannot be written, UserError where the disk is full.
    """
    kind, parameters = FORMATS[target.suffix.lower()]
    aside = target.parent / f".colorize-{os.getpid()}.partial"  # short: names have a limit
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                photo.save(file, kind, **parameters)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: WebP's limit of 16383 px a side
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise UserError(f"no space left for {target}; free some and run again") from None
        raise PhotoError("unwritable", f"{target} cannot be written: {error}") from error


def _name_outputs(photos: Path, out: Path) -> tuple[list[Task], list[Path]]:
    """A task for each photograph, and the names that were ignored. Raises UserError for none."""
    root, names, ignored = _find(photos)
    if not names:
        raise UserError(f"--photos {photos}: no photographs there (files, a folder or a glob)")
    targets = _target_names(names)
    tasks = [Task(root / name, out / target) for name, target in zip(names, targets, strict=True)]
    return tasks, ignored


def _find(photos: Path) -> tuple[Path, list[Path], list[Path]]:
    """(folder that names are relative to, photographs' names, ignored files' names), sorted."""
    if photos.is_dir():
        files = sorted(_walk(photos), key=os.fsencode)
        names = [file for file in files if file.suffix.lower() in EXTENSIONS]
        return photos, names, [file for file in files if file.suffix.lower() not in EXTENSIONS]
    if os.path.lexists(photos):  # before the glob: a name may have brackets in it
        return photos.parent, [Path(photos.name)], []
    root = next(folder for folder in photos.parents if folder.is_dir())
    matches = set(glob(str(photos.relative_to(root)), root_dir=root, recursive=True))
    return root, [Path(m) for m in sorted(matches, key=os.fsencode) if (root / m).is_file()], []


def _walk(root: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise UserError(f"--photos: {error.filename} cannot be listed: {error.strerror}")

    seen = set()  # a link to a folder above would lead round and round
    for folder, folders, files in os.walk(root, onerror=stop, followlinks=True):
        identity = _identity(Path(folder))
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in files:
            if not file.startswith("."):
                yield Path(folder, file).relative_to(root)


def _target_names(names: list[Path]) -> list[Path]:
    """a.jpg → a.jpg, b.bmp → b.png, or b.bmp.png where another b would become b.png too."""
    wanted = [
        name if name.suffix.lower() in FORMATS else name.with_suffix(".png") for name in names
    ]
    uses = Counter(wanted)
    targets = [
        name.with_name(f"{name.name}.png") if uses[want] > 1 and want != name else want
        for name, want in zip(names, wanted, strict=True)
    ]
    for target, count in Counter(targets).items():
        if count > 1:
            raise UserError(f"{count} photographs would be saved as {target}; rename one of them")
    return targets


def _refuse_to_write_among_inputs(tasks: list[Task], out: Path) -> None:
    """Raise UserError if an output would lie in a folder, by whatever path, that inputs lie in."""
    sources = {task.source.parent for task in tasks}
    sources |= {Path(os.path.realpath(task.source)).parent for task in tasks}
    inputs = {_identity(folder) for folder in sources if folder.exists()}
    for folder in sorted({task.target.parent for task in tasks}):
        if folder.exists() and _identity(folder) in inputs:
            raise UserError(
                f"--out {out} would write into {folder}, where photographs of --photos lie; "
                "choose another folder for --out"
            )


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
