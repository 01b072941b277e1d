"""A command line in one call: `main(command, Options)` reads argv through Fire into dataclasses.

Every value is text and is parsed by its field's type (`options.py`), both from flags and from
`--config FILE`. A user's mistake is one message without a traceback.
"""

import inspect
import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from pix2pix.cli.arguments import from_arguments, from_file
from pix2pix.cli.help import help_text, table, wrap, written
from pix2pix.cli.options import CONFIG, enumerate_words, flags_of, suggestion
from pix2pix.errors import LostProcessError, UserError

T = TypeVar("T")
Command = Callable[..., int | None]
Options = type | tuple[type, ...]


def main(
    command: Command | Mapping[str, tuple[Command, Options]],
    options: Options | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Run `command(parse(options, argv))`, and exit with the status that it returns (None is 0).

    A UserError is printed once, by rank 0 of a launch, and exits with status 2 on every rank. A
    LostProcessError is printed by every rank that noticed, and exits with status 69. Any other
    exception keeps its traceback, because it is a bug of ours.

    Args:
        command: a function of an `options`; `--help` begins with its docstring. Or a mapping from
            the names of subcommands to (function, options).
        options: a dataclass of `option` fields, or several: the command takes one of each.
        argv: the arguments after the program's name; None reads those of the process.
    """
    try:
        status = _run(command, options, sys.argv[1:] if argv is None else argv, _program())
        sys.stdout.flush()
    except UserError as error:
        if _is_first_rank():
            print(wrap(f"error: {error}"), file=sys.stderr)
        status = 2
    except LostProcessError as error:
        print(wrap(f"error: {error}"), file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(69)  # EX_UNAVAILABLE; threads that wait for the lost process would dump core
    except KeyboardInterrupt:
        status = 130  # 128 + SIGINT, as a shell reports it
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # Otherwise the interpreter fails to flush at exit, and prints an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141  # 128 + SIGPIPE
    sys.exit(status)


def parse(options: type[T], arguments: Sequence[str]) -> T:
    """Return the options from flags and from the file of `--config FILE`; flags override the file.

    Raises:
        UserError: a flag or an entry of the file is unknown, repeated, missing or not of its type,
            or `options` itself refuses the values.
    """
    return cast(T, parse_all((options,), arguments)[0])


def parse_all(classes: Sequence[type], arguments: Sequence[str]) -> tuple[Any, ...]:
    """Return one instance of each class, from flags that belong to any of them.

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
) -> int:
    name = arguments[0] if arguments else ""
    if isinstance(command, Mapping) and name in command:
        return _run(*command[name], arguments[1:], f"{program} {name}")
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
    return command(*parse_all(classes, arguments)) or 0


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"  # set by accelerate, torchrun and our SLURM jobs


def _reader_has_left() -> bool:
    """Return True if the broken pipe is our stdout (`… | head`), not a pipe of the command."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


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
    if _is_first_rank():
        print(text)
    return 0
