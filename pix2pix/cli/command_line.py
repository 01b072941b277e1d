"""A command line in one call: `main(command, Options)` reads argv through Fire into dataclasses.

Every value is text and is parsed by its field's type (`options.py`), both from flags and from
`--config FILE`. A user's mistake is one message without a traceback.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from pix2pix.cli.arguments import Given, from_arguments, from_file
from pix2pix.cli.ending import end_after, is_first_rank
from pix2pix.cli.help import help_text, table, written
from pix2pix.cli.options import CONFIG, enumerate_words, flags_of, suggestion
from pix2pix.errors import UserError

T = TypeVar("T")
Command = Callable[..., int | None]
Options = type | tuple[type, ...]


def main(
    command: Command | Mapping[str, tuple[Command, Options]],
    options: Options | None = None,
    argv: Sequence[str] | None = None,
    defaults: Callable[[], Mapping[str, tuple[str, str]]] = dict,
) -> NoReturn:
    """Run `command(parse(options, argv))`, and exit with the status that it returns (None is 0).

    A UserError is printed once, by rank 0 of a launch or by the rank that met it alone, and exits
    with status 2 on every rank. A LostProcessError is printed by every rank that noticed, and exits
    with status 69. Any other exception keeps its traceback: that is a bug of ours.
    After an error a rank of several leaves at once: an orderly exit waits for the others.

    Args:
        command: a function of an `options`; `--help` begins with its docstring. Or a mapping from
            the names of subcommands to (function, options).
        options: a dataclass of `option` fields, or several: the command takes one of each.
        argv: the arguments after the program's name; None reads those of the process.
        defaults: what the surroundings say, name → (text, where it stands); any flag or file wins.
    """
    try:
        arguments = sys.argv[1:] if argv is None else argv
        status = _run(command, options, arguments, _program(), defaults)
        if sys.stdout:  # None where it is closed
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        status = end_after(error)
    sys.exit(status)


def parse(options: type[T], arguments: Sequence[str]) -> T:
    """Return the options from flags and from the file of `--config FILE`; flags override the file.

    Raises:
        UserError: a flag or an entry of the file is unknown, repeated, missing or not of its type,
            or `options` itself refuses the values.
    """
    return cast(T, parse_all((options,), arguments)[0])


def parse_all(
    classes: Sequence[type],
    arguments: Sequence[str],
    defaults: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[Any, ...]:
    """Return one instance of each class, from flags that belong to any of them.

    defaults: name → (text, where it stands), of what neither a flag nor a file gives.

    A class may have a static method `preset_of(texts)`. From the texts of the given flags it
    returns a file and the name of a mapping in it with more flags of the class, or None. Flags and
    --config override these.

    Raises:
        UserError: as for `parse`.
    """
    flags = flags_of(*classes)
    given = from_arguments(arguments, flags | {"config": CONFIG})
    if "config" in given:
        path = CONFIG.read(*given.pop("config"))
        if path is not None:
            given = from_file(path, "--config", flags) | given
    for options in classes:
        preset_of = getattr(options, "preset_of", None)
        place = preset_of and preset_of({name: raw for name, (raw, _) in given.items()})
        if place:
            file, section = place
            preset = from_file(file, "--presets", flags_of(options), section)
            given = preset | given
    given = {name: Given(*told) for name, told in (defaults or {}).items()} | given
    values = {name: flags[name].read(raw, where) for name, (raw, where) in given.items()}
    missing = [written(flag) for flag in flags.values() if flag.required and flag.name not in given]
    if missing:
        raise UserError(f"missing {enumerate_words(missing, 'and')}; --help lists every flag")
    return tuple(
        options(**{name: values[name] for name in flags_of(options) if name in values})
        for options in classes
    )


def _run(
    command: Command | Mapping[str, tuple[Command, Options]],
    options: Options | None,
    arguments: Sequence[str],
    program: str,
    defaults: Callable[[], Mapping[str, tuple[str, str]]],
) -> int:
    name = arguments[0] if arguments else ""
    if isinstance(command, Mapping) and name in command:
        return _run(*command[name], arguments[1:], f"{program} {name}", defaults)
    wants_help = "--help" in arguments or "-h" in arguments
    if isinstance(command, Mapping):
        commands = table((name, _intro(run).split("\n")[0]) for name, (run, _) in command.items())
        if wants_help:
            return _print_help(f"usage: {program} COMMAND [flags]\n\n{commands}")
        hint = suggestion(name, command) or "."
        problem = f"unknown command '{name}'{hint}" if name else "a command is missing."
        raise UserError(f"{problem} The commands are:\n{commands}")
    assert options is not None, "main(function) needs options"
    classes = options if isinstance(options, tuple) else (options,)
    if wants_help:
        return _print_help(help_text(*classes, program=program, intro=_intro(command)))
    return command(*parse_all(classes, arguments, defaults())) or 0


def _program() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    started = Path(sys.argv[0])  # without .py: a console command
    return f"python {started}" if started.suffix == ".py" else started.name


def _intro(command: Command) -> str:
    module = sys.modules.get(command.__module__)
    return inspect.getdoc(command) or inspect.cleandoc((module and module.__doc__) or "")


def _print_help(text: str) -> int:
    if is_first_rank():
        print(text)
    return 0
