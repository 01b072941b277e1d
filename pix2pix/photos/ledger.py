"""What was colored into a folder, of which files and how: a run that was interrupted goes on."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from pix2pix.errors import UserError

LEDGER = ".colorize.jsonl"


class Ledger:
    """The record of a folder, a line for each photograph that was colored into it.

    made_by: what decides about a result beside its photograph: model, options, versions.
    start_over: what is recorded so far counts for nothing.
    """

    def __init__(self, out: Path, made_by: str, start_over: bool = False) -> None:
        self._out = out
        self._made_by = sha256(made_by.encode()).hexdigest()[:16]
        self._entries = {} if start_over else self._read()

    def is_done(self, source: Path, *targets: Path) -> bool:
        """Return True if `targets` are what was made of this very file, by the same means."""
        entry = self._entries.get(self._name(targets[0]))
        try:
            expected = {**self._entry(source, targets[0]), "also": len(targets) - 1}
            return entry == expected and all(target.is_file() for target in targets)
        except OSError:
            return False

    def add(self, source: Path, *targets: Path) -> None:
        """Record that `targets` were made of `source`; raises UserError if it cannot be written."""
        entry = {**self._entry(source, targets[0]), "also": len(targets) - 1}
        name = self._name(targets[0])
        line = json.dumps({"target": name, **entry}) + "\n"
        try:
            with (self._out / LEDGER).open("a", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            raise UserError(f"{self._out / LEDGER} cannot be written: {error.strerror}") from None
        self._entries[name] = entry

    def _name(self, target: Path) -> str:
        return os.fsencode(target.relative_to(self._out)).hex()

    def _entry(self, source: Path, target: Path) -> dict[str, Any]:
        status = source.stat()
        return {
            "source_bytes": status.st_size,
            "source_mtime_ns": status.st_mtime_ns,
            "target_bytes": target.stat().st_size,
            "made_by": self._made_by,
        }

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            lines = (self._out / LEDGER).read_bytes().splitlines()
        except OSError:
            return {}
        entries = {}
        for line in lines:
            try:
                entry = json.loads(line)
                entries[entry.pop("target")] = entry
            except (ValueError, KeyError, AttributeError):  # cut short when the run was killed
                continue
        return entries
