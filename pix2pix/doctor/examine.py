"""Run every check in a process of its own, for a bounded time, and lay the rows out as a table.

python -m pix2pix.doctor.examine MODULE FUNCTION PATIENT prints the rows of one check as JSON.
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module

from pix2pix.cli.help import WIDTH, wrap
from pix2pix.doctor.findings import Finding, Patient, fails
from pix2pix.system.bounded import run_bounded

_MACHINE, _TORCH = "pix2pix.doctor.machine", "pix2pix.doctor.torch_checks"
CHECKS = (  # name, module, function, seconds that it may take
    ("Python", _MACHINE, "check_python", 10),
    ("packages", _MACHINE, "check_packages", 10),
    ("torch", _TORCH, "check_torch", 60),
    ("training step", _TORCH, "check_step", 120),
    ("all-reduce", "pix2pix.doctor.all_reduce", "check_all_reduce", 90),
    ("loader processes", _MACHINE, "check_processes", 40),
    ("shards", _MACHINE, "check_shards", 30),
    ("run_dir", _MACHINE, "check_run_dir", 30),
    ("SLURM", _MACHINE, "check_slurm", 30),
)
_SIGN = {"ok": "ok   ", "note": "note ", "fails": "FAILS"}
_RESULT = "pix2pix doctor: "  # what a check prints may stand between words of libraries


def examine(patient: Patient, seconds: float | None = None) -> Iterator[Finding]:
    """Yield the rows of every check as it ends.

    seconds: what each check may take, in place of its own limit. A check that crashes, hangs or
    cannot be imported is a row that says so.
    """
    for what, module, function, limit in CHECKS:
        yield from _run(what, module, function, patient, seconds or limit)


def _run(
    what: str, module: str, function: str, patient: Patient, seconds: float
) -> Sequence[Finding]:
    command = [sys.executable, "-m", __spec__.name, module, function, json.dumps(asdict(patient))]
    ended = run_bounded(command, seconds)
    if ended.status is None:
        cure = "a driver or a file system may hang: try it alone, see dmesg"
        return [fails(what, f"no answer in {seconds:.0f} s", cure)]
    lines = [line for line in ended.output.splitlines() if line.startswith(_RESULT)]
    if ended.status or not lines:
        words = ended.errors.strip().splitlines() or [f"status {ended.status}"]
        return [fails(what, words[-1][:200], _cure(ended.status, words[-1]))]
    return [Finding(**row) for row in json.loads(lines[-1].removeprefix(_RESULT))]


def _cure(status: int, last_words: str) -> str:
    """Return what to do where a check itself ended with an error."""
    if "ImportError" in last_words or "ModuleNotFoundError" in last_words:
        return "install what is missing: pip install -e ."
    if status < 0:
        return f"it was ended by signal {-status}: memory may be short, or a library is broken"
    return "mend what it says; if that is not on this machine, please report it"


def row_text(row: Finding) -> str:
    """Return a row within 80 columns: sign, thing, what was found, and the cure below."""
    head = f"{_SIGN[row.status]} {row.what:18} "
    indent = " " * len(_SIGN["ok"] + " " * 20)
    lines = _filled(row.text, WIDTH - len(head))
    if row.cure:
        lines += _filled(f"→ {row.cure}", WIDTH - len(head))
    return head + f"\n{indent}".join(lines)


def _filled(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def verdict(rows: Sequence[Finding]) -> str:
    """Return the last line: whether this machine is ready."""
    failing = [row.what for row in rows if row.status == "fails"]
    if failing:
        return wrap(f"not ready: {', '.join(failing)}. What to do stands behind the arrows.")
    return "ready to train"


def _answer(module: str, function: str, patient: str) -> None:
    """Print the rows of one check; the process that examines reads them."""
    rows = getattr(import_module(module), function)(Patient(**json.loads(patient)))
    print(_RESULT + json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    _answer(*sys.argv[1:])
