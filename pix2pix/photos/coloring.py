"""Colors every photograph of a plan; what cannot be colored is named, and the others go on."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pix2pix.photos.files import Plan, Task
from pix2pix.photos.kinds import tell_others
from pix2pix.photos.ledger import Ledger
from pix2pix.photos.photo import open_picture
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import MAX_PIXELS, Picture, read_gray
from pix2pix.photos.rows import to_8_bits
from pix2pix.photos.saving import remove_leftovers, save_pages, save_photo, side_by_side

Colorize = Callable[[np.ndarray], np.ndarray]  # [H, W] → [H, W, 3], of the same depth


@dataclass
class Report:
    """What became of a plan.

    Attributes:
        plan: of which.
        failures: the photographs that could not be colored.
        num_kept: those that were there already, made of the same file in the same way.
        notes: how often something was not as it was meant.
    """

    plan: Plan
    failures: list[Path] = field(default_factory=list)
    num_kept: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """True if every photograph was colored, and every folder could be listed."""
        return not self.failures and not self.plan.unlisted

    def __str__(self) -> str:
        total = len(self.plan.tasks)
        text = f"{total - len(self.failures)} of {total} photographs colored, in "
        text += _printable(self.plan.out)
        if self.failures:
            text += f"; {len(self.failures)} failed, named above with the reason"
        if self.num_kept:
            text += f"; {self.num_kept} of them were there, of the same file, model and options"
        lines = [text, *tell_others(map(_printable, self.plan.ignored))]
        lines += [f"{count}: {note}" for note, count in sorted(self.notes.items())]
        if self.plan.unlisted:
            lines.append(f"folders that could not be listed: {len(self.plan.unlisted)}, see above")
        return "\n".join(lines)


def colorize_files(
    colorize: Colorize,
    plan: Plan,
    ledger: Ledger | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Report:
    """Color every photograph of a plan, with a progress bar; a broken one is named and left out.

    Results are upright and in sRGB, with the depth and the metadata of their photographs as far as
    their formats have them. Outputs of an earlier run are replaced, but for those that `ledger`
    knows to be the same. What a run that was killed left unfinished is removed.

    Raises:
        UserError: the disk is full.
    """
    report = Report(plan)
    with tqdm(plan.tasks, desc="coloring", unit=" photos") as tasks:
        removed = remove_leftovers({task.target.parent for task in plan.tasks})
        if removed:
            tasks.write(f"unfinished files of a run that was killed: {removed} removed", sys.stderr)
        for folder, why in plan.unlisted:
            tasks.write(f"{_printable(folder)}: cannot be listed: {why}", file=sys.stderr)
        for task in tasks:
            targets = (task.target, task.comparison) if plan.compare else (task.target,)
            if ledger is not None and ledger.is_done(task.source, *targets):
                report.num_kept += 1
                continue
            try:
                notes = _color(colorize, task, plan.compare, max_pixels)
            except PhotoError as error:
                report.failures.append(task.source)
                more = "; --max_megapixels allows more" * (error.reason == "too_many_pixels")
                tasks.write(f"{_printable(task.source)}: {error}{more}", file=sys.stderr)
                continue
            if ledger is not None:
                ledger.add(task.source, *targets)
            for note in notes:
                tasks.write(f"{_printable(task.source)}: {note}", file=sys.stderr)
                report.notes[note.partition(": ")[0]] += 1
    return report


def _color(colorize: Colorize, task: Task, compare: bool, max_pixels: int) -> list[str]:
    """Color one photograph; returns what was not as it was meant."""
    picture = open_picture(task.source, max_pixels)
    beside: list[Image.Image] = []
    try:
        status = task.source.stat()
        lost = save_pages(
            _colored_pages(colorize, picture, beside if compare else None),
            task.target,
            picture.metadata,
            picture.num_pages,
            (status.st_atime_ns, status.st_mtime_ns),
        )
        for comparison in beside:
            save_photo(comparison, task.comparison)
        return list(dict.fromkeys([*picture.notes, *lost]))
    finally:
        picture.close()


def _colored_pages(
    colorize: Colorize, picture: Picture, beside: list[Image.Image] | None
) -> Iterator[np.ndarray]:
    """Yield the pages, colored one by one; `beside` gets the first next to its gray, small."""
    for index in range(picture.num_pages):
        gray = read_gray(picture, index)
        if index == picture.num_pages - 1:
            picture.close()  # its memory is wanted now
        colored = colorize(gray)
        if beside is not None and index == 0:
            shown = [Image.fromarray(to_8_bits(pixels)) for pixels in (gray, colored)]
            beside.append(side_by_side(*shown))
        yield colored


def _printable(path: Path) -> str:
    """Names need not be UTF-8, but standard output refuses what is not."""
    return os.fsencode(path).decode(errors="backslashreplace")
