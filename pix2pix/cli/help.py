"""Output of command lines: `--help`, tables and messages, within 80 columns."""

import textwrap
from collections.abc import Iterable
from itertools import groupby

from pix2pix.cli.options import CONFIG, Flag, flags_of

WIDTH = 80  # characters per line of all output
LEFT = 32  # of these, the width of a table's left column


def help_text(*classes: type, program: str, intro: str = "") -> str:
    """Return the text of `--help`: usage, `intro`, then the flags by group, within 80 columns."""
    flags = flags_of(*classes).values()
    groups: dict[str, list[tuple[str, str]]] = {}
    for flag in [*flags, CONFIG]:
        groups.setdefault(flag.group, []).append((written(flag), _explained(flag)))
    groups[CONFIG.group].append(("--help", "print this text"))
    positional = [
        flag.metavar if flag.required else f"[{flag.metavar}]" for flag in flags if flag.positional
    ]
    required = [written(flag) for flag in flags if flag.required and not flag.positional]
    usage = " ".join(["usage:", program, *positional, *required, "[flags]"])
    tables = [f"{group}\n{table(rows)}" for group, rows in groups.items()]
    return "\n\n".join([_fill(usage, " " * 7), *filter(None, [wrap(intro)]), *tables])


def written(flag: Flag) -> str:
    """Return the flag as it is written: `--image_size PIXELS`."""
    return f"--{flag.name} {flag.metavar}"


def _explained(flag: Flag) -> str:
    note = "required" if flag.required else f"default {flag.default_text}"
    repeats = "; may be repeated" if flag.many == "repeats" else ""
    return f"{flag.help} ({note}{repeats})"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of two columns; a left cell that is too long gets its own line."""
    lines = []
    for left, right in rows:
        left = f"  {left}"
        start = left.ljust(LEFT) if len(left) < LEFT - 1 else f"{left}\n{' ' * LEFT}"
        wrapped = textwrap.wrap(right, WIDTH - LEFT, break_long_words=False)
        lines.append(start + f"\n{' ' * LEFT}".join(wrapped))
    return "\n".join(lines)


def wrap(text: str) -> str:
    """Fill each paragraph to the width; leave indented lines unchanged."""
    blocks = groupby(text.splitlines(), key=lambda line: bool(line[:1].strip()))
    return "\n".join(
        _fill(" ".join(lines)) if is_prose else "\n".join(lines) for is_prose, lines in blocks
    )


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
