"""Which photographs are colored, and the files that become of them (no torch).

An input is never overwritten.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pix2pix.errors import UserError
from pix2pix.photos.finding import Found, find_photos
from pix2pix.photos.kinds import SUFFIXES
from pix2pix.photos.saving import FORMATS

Format = Literal["keep", "jpg", "png", "tiff"]

# Formats that are not written: those of photographs become JPEG, those without loss PNG.
_BECOME_JPEG = frozenset(
    suffix for kind in ("HEIF", "AVIF", "JXL", "JPEG2000") for suffix in SUFFIXES[kind]
)
_ENDINGS = {"jpg": ".jpg", "png": ".png", "tiff": ".tif"}


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
    """What is to be colored into the folder `out`.

    Attributes:
        tasks: a photograph each.
        ignored: files of other kinds in between.
        out: the folder.
        compare: whether each gets a comparison beside it, too.
        unlisted: (folder, reason) of those whose photographs are not known.
    """

    tasks: list[Task]
    ignored: list[Path]
    out: Path
    compare: bool = False
    unlisted: tuple[tuple[Path, str], ...] = ()


def plan_outputs(
    photos: Path | Sequence[Path], out: Path, compare: bool = False, saved_as: Format = "keep"
) -> Plan:
    """Decide what is colored and where it goes, before anything is written.

    Args:
        photos: files, folders (with their sub-folders; hidden files left out, links followed) and
            globs, where ** means any sub-folders.
        out: outputs keep sub-folders and names below it.
        compare: whether each gets a comparison beside it, too.
        saved_as: `keep` keeps JPEG, PNG, WebP and TIFF with their extensions; HEIC, AVIF, JPEG XL
            and JPEG 2000 become .jpg, others .png. Any other value is the format of all.

    Raises:
        UserError: there is nothing to color, `out` cannot be a folder, or outputs would come to lie
            among the inputs or on each other.
    """
    found, tasks = _name_outputs(photos, out, saved_as)
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
    return Plan(tasks, found.ignored, out, compare, tuple(found.unlisted))


def find_colorized(photos: Path, colorized: Path) -> list[Task]:
    """Return those photographs of which the folder `colorized` holds the file that is planned.

    Raises:
        UserError: there is no photograph at `photos`, a file, a folder or a glob.
    """
    _, tasks = _name_outputs(photos, colorized, "keep")
    return [task for task in tasks if task.target.is_file()]


def target_suffix(name: Path, saved_as: Format = "keep") -> str:
    """Return the extension of what becomes of a photograph; one that stays keeps its spelling."""
    suffix = name.suffix.lower()
    if saved_as == "keep":
        if suffix in FORMATS:
            return name.suffix
        return ".jpg" if suffix in _BECOME_JPEG else ".png"
    ending = _ENDINGS[saved_as]
    is_same = suffix in FORMATS and FORMATS[suffix] == FORMATS[ending]
    return name.suffix if is_same else ending


def _name_outputs(
    photos: Path | Sequence[Path], out: Path, saved_as: Format
) -> tuple[Found, list[Task]]:
    """Return what was found, and a task for each photograph. Raises UserError for none."""
    paths = [photos] if isinstance(photos, Path) else list(photos)
    found = find_photos(paths)
    if not found.names:
        told = " ".join(map(str, paths[:3])) + (" …" if len(paths) > 3 else "")
        why = "".join(f"; {folder} cannot be listed: {why}" for folder, why in found.unlisted[:1])
        raise UserError(f"--photos {told}: no photographs there (files, folders or globs){why}")
    targets = _target_names(found.names, saved_as)
    tasks = [
        Task(found.root / name, out / target)
        for name, target in zip(found.names, targets, strict=True)
    ]
    return found, tasks


def _target_names(names: list[Path], saved_as: Format) -> list[Path]:
    """a.jpg → a.jpg, b.bmp → b.png, or b.bmp.png where another b would become b.png too."""
    wanted = [name.with_suffix(target_suffix(name, saved_as)) for name in names]
    uses = Counter(wanted)
    targets = [
        name.with_name(name.name + want.suffix) if uses[want] > 1 and want != name else want
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
