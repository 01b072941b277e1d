"""What a check found, in which order checks run, and how long each may take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "fails"]


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    what: the thing that was checked. text: what was found, for people. cure: what to do, "" for ok.
    """

    what: str
    status: Status
    text: str
    cure: str = ""


@dataclass(frozen=True)
class Patient:
    """What to look at beside the machine itself; travels to each check as JSON.

    shards: folders and URLs. run_dir: a path as text, or None. compile: the networks of the
    training step.
    """

    shards: Sequence[str] = ()
    run_dir: str | None = None
    compile: bool = False


def ok(what: str, text: str) -> Finding:
    """Return a row that says that all is well."""
    return Finding(what, "ok", text)


def note(what: str, text: str, cure: str = "") -> Finding:
    """Return a row that is worth knowing, and stops nobody."""
    return Finding(what, "note", text, cure)


def fails(what: str, text: str, cure: str) -> Finding:
    """Return a row on what stops a training, with what to do."""
    return Finding(what, "fails", text, cure)
