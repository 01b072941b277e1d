"""A command line in one call: `main(command, Options)` reads argv through Fire into dataclasses.

Every value arrives as text and is parsed by its field's type (`options.py`), from a flag and from
`--config FILE` alike. A user's mistake is one message without a traceback.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import fire
from fire.decorators import SetParseFn

from pix2pix.cli.aliases import flags_called, instead_of
from pix2pix.cli.ending import end_after, is_first_rank
from pix2pix.cli.help import help_text, table, written
from pix2pix.cli.options import CONFIG, Flag, enumerate_words, flags_of, suggestion
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
    """Runs `command(parse(options, argv))` and exits with the status it returns (None is 0).

    A UserError is printed once, by rank 0 of a launch or by the rank that met it alone, and exits
    with status 2 on every rank. A LostProcessError is printed by every rank that noticed, and exits
    with status 69. Any other exception keeps its traceback: that is a bug of ours.
    After an error a rank of several leaves at once: an orderly exit waits for the others.

    Args:
        command: a function of an `options`; its docstring introduces `--help`. Or a mapping from
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
    """The options that the flags and the file of a `--config FILE` among them say; flags win.

    Raises:
        UserError: a flag or a file's entry is unknown, repeated, missing or not readable as its
            type, or `options` itself refuses the values.
    """
    return cast(T, parse_all((options,), arguments)[0])


def parse_all(
    classes: Sequence[type],
    arguments: Sequence[str],
    defaults: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[Any, ...]:
    """One of each class, from flags that belong to all of them together; raises as `parse`.

    defaults: name → (text, where it stands), of what neither a flag nor a file gives.

    A class may have a static method `preset_of(texts)`: by the texts that are given, it names a
    file and a mapping in it with more of its flags, which flags and --config win over; or None.
    """
    flags = flags_of(*classes)
    given = _from_arguments(arguments, flags | {"config": CONFIG})
    if "config" in given:
        path = CONFIG.read(*given.pop("config"))
        if path is not None:
            given = _from_file(path, "--config", flags) | given
    for options in classes:
        preset_of = getattr(options, "preset_of", None)
        place = preset_of and preset_of({name: raw for name, (raw, _) in given.items()})
        if place:
            file, section = place
            preset = _from_file(file, "--presets", flags_of(options), section)
            given = preset | given
    given = {name: _Given(*told) for name, told in (defaults or {}).items()} | given
    values = {name: flags[name].read(raw, where) for name, (raw, where) in given.items()}
    missing = [written(flag) for flag in flags.values() if flag.required and flag.name not in given]
    if missing:
        raise UserError(f"missing {enumerate_words(missing, 'and')}; --help lists every flag")
    return tuple(
        options(**{name: values[name] for name in flags_of(options) if name in values})
        for options in classes
    )


class _Given(NamedTuple):
    """A value that somebody gave, and where it stands: the start of an error about it."""

    raw: str | list[str]
    where: str


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


def _from_arguments(arguments: Sequence[str], flags: Mapping[str, Flag]) -> dict[str, _Given]:
    """Return argv by flag name. Fire does the grammar, with its guesses about values taken away."""
    arguments, lists = _take_lists(arguments, flags)
    positional: list[str] = []
    named: dict[str, str] = {}

    @SetParseFn(str)  # or fire reads 1_000 as 1000 and n1,n2 as a tuple
    def collect(*values: str, **texts: str) -> None:
        positional.extend(values)
        named.update(texts)

    spelled = list(_spell_out(arguments, flags))
    # What follows the last `--` are fire's own flags, `--interactive` for one: ours stand there, so
    # that a user's cannot. Without another separator, a lone `-` would end the arguments.
    fire.Fire(collect, command=[*spelled, "--", "--separator=\0"])

    names = [_flag_name(argument) for argument in spelled if _is_flag(argument)]
    for name in names:
        if name not in flags:
            raise UserError(f"unknown flag --{name}{_flag_hint(name, flags, '--')}")
    for name in named:
        if names.count(name) > 1:
            raise UserError(f"--{name} is given {names.count(name)} times; give it once")
    slot = next((flag.name for flag in flags.values() if flag.positional), None)
    for value in positional:
        if slot is None or slot in named:
            raise UserError(f"unexpected argument '{value}'; flags are written --name value")
        named[slot] = value
    return {name: _Given(raw, f"--{name}") for name, raw in (named | lists).items()}


def _take_lists(
    arguments: Sequence[str], flags: Mapping[str, Flag]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return `arguments` without the flags of several words or repeats, and the texts of those.

    Fire knows neither kind: it would keep the last of `--sbatch a --sbatch b`, and take the second
    of `--photos a b` for an argument without a flag.
    """
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        name = _flag_name(argument)
        many = flags[name].many if _is_flag(argument) and name in flags else None
        if many not in ("words", "repeats"):
            rest.append(argument)
            continue
        if many == "words" and name in lists:
            raise UserError(f"--{name} is given twice; give it once, with all of its values")
        texts = [argument.partition("=")[2]] if "=" in argument else []
        while pending and not _is_flag(pending[0]) and (many == "words" or not texts):
            texts.append(pending.pop(0))
        if not texts and pending:
            raise UserError(
                f"--{name} needs a value; write --{name}=VALUE if it begins with a dash"
            )
        lists.setdefault(name, []).extend(texts or [""])  # "": an error that names the type
    return rest, lists


def _spell_out(arguments: Sequence[str], flags: Mapping[str, Flag]) -> Iterator[str]:
    """Writes `--dropout` as `--dropout=true`; fire would also read `--norm` as `--rm=False`."""
    for argument, following in zip_longest(arguments, arguments[1:]):
        name = _flag_name(argument)
        if _is_flag(argument) and not name:
            raise UserError(f"unexpected argument '{argument}'; flags are written --name value")
        has_value = "=" in argument or (following is not None and not _is_flag(following))
        if not _is_flag(argument) or has_value:
            yield argument
            continue
        denied = name.removeprefix("no").removeprefix("_")
        if name in flags and flags[name].kind is bool:
            yield f"--{name}=true"
        elif name not in flags and denied in flags and flags[denied].kind is bool:
            yield f"--{denied}=false"
        elif name in flags and following is not None:
            raise UserError(
                f"--{name} needs a value; write --{name}=VALUE if it begins with a dash"
            )
        else:
            yield f"--{name}="  # an error, but one for those who know the flags and their types


def _is_flag(argument: str) -> bool:
    return re.match("--|-[a-zA-Z]", argument) is not None  # as fire decides it: -5 is a value


def _flag_name(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0].replace("-", "_")


def _from_file(
    path: Path, what: str, flags: Mapping[str, Flag], section: str = ""
) -> dict[str, _Given]:
    """The entries of a YAML mapping as text: `precision: no` stays "no", `2e-4` stays "2e-4".

    what: the file, in an error. section: the name of a mapping in the file, if it is that.
    """
    import yaml  # only those who give a file wait for it

    try:
        # Nodes instead of values: every scalar as it is written, with its line, repeated keys too.
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} is not YAML: {' '.join(str(error).split())}") from None
    if section:
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        sections = {key.value: value for key, value in pairs}
        if section not in sections:
            hint = suggestion(section, sections) or f"; there are: {', '.join(sections) or 'none'}"
            raise UserError(f"{what} {path} has no {section}{hint}")
        root = sections[section]
    if root is None:  # nothing but comments
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{what} {path} must hold `name: value` lines, one for each flag")
    given: dict[str, _Given] = {}
    for key, value in root.value:
        line = f"{path}:{key.start_mark.line + 1}:"
        name = str(key.value).replace("-", "_")
        if name not in flags:
            raise UserError(f"{line} unknown setting {name}{_flag_hint(name, flags)}")
        if name in given:
            raise UserError(f"{line} {name} is given twice; give it once")
        is_list = isinstance(value, yaml.SequenceNode)
        items = value.value if is_list else [value]
        if not all(isinstance(item, yaml.ScalarNode) for item in items):
            raise UserError(f"{line} {name} takes a value, not a mapping of names to values")
        texts = [item.value for item in items]
        given[name] = _Given(texts if is_list else texts[0], f"{line} {name}")
    return given


def _flag_hint(name: str, known: Iterable[str], dash: str = "") -> str:
    """Return the end of an error on an unknown flag: which one may be meant, or what to do.

    dash: what stands before a flag's name there.
    """
    known = list(known)
    ours = [flag for flag in flags_called(name) if flag in known]
    if ours:
        return f"; here it is {dash}{ours[0]}"
    instead = instead_of(name)
    if instead:
        return f"; {instead}"
    return suggestion(name, known, dash) or "; --help lists every flag"


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
