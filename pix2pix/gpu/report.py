"""The report on a GPU: a Markdown table for each section, ready for docs/performance.md."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from time import gmtime, strftime
from typing import NamedTuple

from pix2pix.cli.help import WIDTH
from pix2pix.gpu.sections import Row, Section
from pix2pix.system.durable import publish

_HEAD = "# Report on a GPU\n\nWritten by `make gpu`; each section names its device and time.\n"
_WIDE = 8  # columns; more are shown as a table of names and values


class Outcome(NamedTuple):
    """How a section ended.

    problem: why it is not whole, "" where it is. seconds: it took. began: seconds since 1970.
    """

    rows: list[Row]
    problem: str
    seconds: float
    began: float
    log: Path


def write_section(folder: Path, section: Section, outcome: Outcome, where: str) -> None:
    """Write the text of a section; it replaces what an earlier run of it left."""
    publish(_file_of(folder, section), section_text(section, outcome, where).encode())


def write_report(folder: Path, sections: Sequence[Section]) -> None:
    """Put the texts of all sections together, also those of earlier runs."""
    texts = [_HEAD]
    files = [_file_of(folder, section) for section in sections]
    texts += [file.read_text() for file in files if file.exists()]
    publish(folder / "report.md", "\n".join(texts).encode())


def section_text(section: Section, outcome: Outcome, where: str) -> str:
    """Return a section as Markdown: where it ran, its rows, its targets, what went wrong."""
    when = strftime("%Y-%m-%d %H:%M UTC", gmtime(outcome.began))
    told = f"{section.title}. {where}; {when}, {outcome.seconds:.0f} s."
    lines = [f"## {section.name}", "", told]
    if outcome.rows:
        lines += ["", *_table(outcome.rows)]
    if section.targets:
        told = "; ".join(target.judge(outcome.rows) for target in section.targets)
        lines += ["", f"Targets: {told}."]
    if outcome.problem:
        rest = "the rows above were measured before; " if outcome.rows else ""
        problem = f"**Failed**: {_cell(outcome.problem)} ({rest}see {outcome.log.name})"
        lines += ["", problem]
    return "\n".join(lines) + "\n"


def summary_line(section: Section, outcome: Outcome) -> str:
    """Return what is printed when a section ends, within 80 columns."""
    sign = "FAILS" if outcome.problem else "ok   "
    head = f"{sign} {section.name:12} {outcome.seconds:4.0f} s  "
    told = [target.judge(outcome.rows) for target in section.targets]
    told += [outcome.problem] if outcome.problem else []
    text = "; ".join(told) or "done"
    lines = textwrap.wrap(text, WIDTH - len(head), break_long_words=False)
    return head + f"\n{' ' * len(head)}".join(lines)


def _table(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if len(rows) == 1 and len(columns) > _WIDE:
        cells = [[name, _cell(value)] for name, value in rows[0].items()]
        columns = ["figure", "value"]
    else:
        cells = [[_cell(row.get(name, "")) for name in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(value: float | int | str) -> str:
    if isinstance(value, str):
        return " ".join(value.split()).replace("|", "\\|")
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _file_of(folder: Path, section: Section) -> Path:
    return folder / f"{section.name}.md"
