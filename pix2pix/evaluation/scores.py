"""What was measured of each photograph, as a table; kept aside while an evaluation is going on.

Everything that a report says is computed from the whole table in the order of the photographs, so
it is the same for any number of ranks, and for an evaluation that was interrupted.
"""

import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pix2pix.errors import UserError
from pix2pix.system.durable import publish

SAVE_EVERY_SECONDS = 10.0
_POSITION = "position"


@dataclass(frozen=True)
class Scores:
    """A row for each photograph, N of them.

    positions: [N] int64, which of the split, in manifest order. columns: name → [N, …].
    """

    positions: NDArray[np.int64]
    columns: Mapping[str, NDArray]

    @classmethod
    def join(cls, tables: Iterable["Scores"]) -> "Scores":
        """All rows, each photograph once, in the order of positions."""
        tables = [table for table in tables if len(table.positions)]
        if not tables:
            return cls(np.empty(0, dtype=np.int64), {})
        positions = np.concatenate([table.positions for table in tables])
        unique, rows = np.unique(positions, return_index=True)
        return cls(
            unique,
            {
                name: np.concatenate([table.columns[name] for table in tables])[rows]
                for name in tables[0].columns
            },
        )

    def of(self, prefix: str) -> dict[str, NDArray]:
        """The columns `prefix/NAME`, by NAME."""
        start = f"{prefix}/"
        return {
            name.removeprefix(start): column
            for name, column in self.columns.items()
            if name.startswith(start)
        }


class ScoreStore:
    """Keeps finished rows in a hidden folder beside the report, for a rerun to go on from.

    report: the file that the evaluation will write. identity: whatever decides the rows, in text;
    rows of another identity are not used.
    """

    def __init__(self, report: Path, identity: str) -> None:
        self._root = report.parent / f".{report.name}.partial"
        self._folder = self._root / sha256(identity.encode()).hexdigest()[:16]
        self._waiting: list[Scores] = []
        self._saved_at = time.monotonic()

    def __enter__(self) -> "ScoreStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.save()  # Ctrl-C, too, leaves what is done

    def load(self) -> Scores:
        """The rows that are there; those of other evaluations go. One rank calls it.

        Raises UserError where they can't be read.
        """
        try:
            for folder in self._root.glob("*"):
                if folder != self._folder:
                    shutil.rmtree(folder, ignore_errors=True)
            return Scores.join(_read(path) for path in self._folder.glob("*.npz"))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise UserError(
                f"can't read what an earlier start left in {self._root} ({error}); remove that "
                "folder and run again"
            ) from error

    def add(self, scores: Scores) -> None:
        """Take rows; they are saved some seconds later, together with those that follow."""
        self._waiting.append(scores)
        if time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Save what was added. Raises UserError where it can't be written."""
        if not self._waiting:
            return
        table = Scores.join(self._waiting)
        content, arrays = BytesIO(), {_POSITION: table.positions, **table.columns}
        np.savez(content, **arrays)  # type: ignore[arg-type]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            publish(self._folder / f"{uuid4().hex}.npz", content.getvalue())
        except OSError as error:
            reason = error.strerror or os.strerror(error.errno or 0)
            raise UserError(f"can't write into {self._folder}: {reason}") from error
        self._waiting, self._saved_at = [], time.monotonic()

    def remove(self) -> None:
        """The report is written: nothing is needed any more. One rank calls it."""
        shutil.rmtree(self._root, ignore_errors=True)


def _read(path: Path) -> Scores:
    with np.load(path) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    return Scores(columns.pop(_POSITION), columns)
