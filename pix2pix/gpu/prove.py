"""Run the sections one after another, each in a process of its own, and write as each ends.

python -m pix2pix.gpu.prove MODULE FUNCTION TRIAL prints the rows of one section, a line of JSON
each, as they are measured: a section that is ended keeps the rows that it has.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from pix2pix.cli.help import wrap
from pix2pix.gpu.report import Outcome, summary_line, write_report, write_section
from pix2pix.gpu.sections import LOOK, SECTIONS, Row, Section, Trial
from pix2pix.run import launcher
from pix2pix.system.bounded import Ended, run_bounded
from pix2pix.system.durable import publish

NO_GPU = 3  # exit status: nothing was checked
FAILED = 1
_ROW = "pix2pix gpu: "  # what a section yields stands between words of libraries


def prove(
    trial: Trial, folder: Path, part: str | None = None, sections: Sequence[Section] = SECTIONS
) -> int:
    """Run a section, or all but the slow ones, and write `folder`/report.md as each ends.

    Returns:
        0; 1 where a section failed or ran out of time; 3 where there is no GPU.
    """
    facts = _look(trial)
    if "missing" in facts:
        print(wrap(f"{facts['missing']}; nothing was checked. See python scripts/doctor.py"))
        return NO_GPU
    where = str(facts["where"])
    print(wrap(where), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [s for s in sections if (s.name == part if part else not s.slow)]
    status = 0
    for section in chosen:
        outcome = _run(section, trial, folder)
        write_section(folder, section, outcome, where)
        write_report(folder, sections)
        print(summary_line(section, outcome), flush=True)
        status = FAILED if outcome.problem else status
    print(f"written: {folder / 'report.md'}")
    return status


def _look(trial: Trial) -> Row:
    """Return the device and the versions, or what is missing; a driver may hang, or torch break."""
    ended = _process(LOOK, trial)
    rows = _rows(ended)
    if rows:
        return rows[0]
    return {"missing": f"torch does not tell whether there is a GPU: {_problem(LOOK, ended)}"}


def _run(section: Section, trial: Trial, folder: Path) -> Outcome:
    began = time.time()
    ended = _process(section, trial)
    log = folder / f"{section.name}.log"
    publish(log, f"{ended.output}\n{ended.errors}".encode())
    rows = _rows(ended)
    problem = _problem(section, ended)
    if not problem and not rows:
        problem = "it measured nothing"
    return Outcome(rows, problem, ended.seconds, began, log)


def _process(section: Section, trial: Trial) -> Ended:
    words = (section.module, section.function, json.dumps(asdict(trial)))
    environment = {launcher.USE_CPU: "false"}  # whatever the user's shell says
    if trial.device == "cpu":
        environment = {launcher.USE_CPU: "true", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", __spec__.name, *words]
    return run_bounded(command, section.seconds, environment)


def _rows(ended: Ended) -> list[Row]:
    lines = [line for line in ended.output.splitlines() if line.startswith(_ROW)]
    return [json.loads(line.removeprefix(_ROW)) for line in lines]


def _problem(section: Section, ended: Ended) -> str:
    """Return why a section is not whole, "" where it is."""
    if ended.status is None:
        return f"not done in {section.seconds:.0f} s"
    if ended.status == 0:
        return ""
    words = ended.errors.strip().splitlines() or [f"it ended with status {ended.status}"]
    return words[-1][:300]


def _answer(module: str, function: str, trial: str) -> None:
    """Print the rows of one section; the process that writes the report reads them."""
    for row in getattr(import_module(module), function)(Trial(**json.loads(trial))):
        print(f"\n{_ROW}{json.dumps(row)}", flush=True)


if __name__ == "__main__":
    _answer(*sys.argv[1:])
