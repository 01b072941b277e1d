"""The text of every flag, from argv by Fire's grammar and from a YAML file."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import fire
from fire.decorators import SetParseFn

from pix2pix.cli.aliases import flags_called, instead_of
from pix2pix.cli.options import Flag, suggestion
from pix2pix.errors import UserError


class Given(NamedTuple):
    """A given value and its place, with which an error about it begins."""

    raw: str | list[str]
    where: str


def from_arguments(arguments: Sequence[str], flags: Mapping[str, Flag]) -> dict[str, Given]:
    """Return argv by flag name. Fire parses the grammar, without its guesses about values."""
    arguments, lists = _take_lists(arguments, flags)
    positional: list[str] = []
    named: dict[str, str] = {}

    @SetParseFn(str)  # otherwise fire reads 1_000 as 1000 and n1,n2 as a tuple
    def collect(*values: str, **texts: str) -> None:
        positional.extend(values)
        named.update(texts)

    spelled = list(_spell_out(arguments, flags))
    # After the last `--` fire reads its own flags, such as `--interactive`. The command ends with
    # our own `--`, so that a user cannot set them. With the default separator, a lone `-` would end
    # the arguments.
    fire.Fire(collect, command=[*spelled, "--", "--separator=\0"])

    names = [_flag_name(argument) for argument in spelled if _is_flag(argument)]
    for name in names:
        if name not in flags:
            raise UserError(f"unknown flag --{name}{_flag_hint(name, flags, '--')}")
    for name in named:
        if names.count(name) > 1:
            raise UserError(f"--{name} is given {names.count(name)} times; give it once")
    slots = [flag.name for flag in flags.values() if flag.positional]
    for value in positional:
        slot = next((name for name in slots if name not in named), None)
        if slot is None:
            raise UserError(f"unexpected argument '{value}'; flags are written --name value")
        named[slot] = value
    return {name: Given(raw, f"--{name}") for name, raw in (named | lists).items()}


def _take_lists(
    arguments: Sequence[str], flags: Mapping[str, Flag]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return `arguments` without the flags of kind `words` or `repeats`, and the texts of those.

    Fire supports neither: it would keep the last of `--sbatch a --sbatch b`, and treat the second
    of `--photos a b` as an argument without a flag.
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
        lists.setdefault(name, []).extend(texts or [""])  # "" leads to an error that names the type
    return rest, lists


def _spell_out(arguments: Sequence[str], flags: Mapping[str, Flag]) -> Iterator[str]:
    """Yield `--dropout` as `--dropout=true`; fire would also read `--norm` as `--rm=False`."""
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
            yield f"--{name}="  # an error, raised by the caller, who knows flags and types


def _is_flag(argument: str) -> bool:
    return re.match("--|-[a-zA-Z]", argument) is not None  # the rule of fire: -5 is a value


def _flag_name(argument: str) -> str:
    return argument.lstrip("-").partition("=")[0].replace("-", "_")


def from_file(
    path: Path, what: str, flags: Mapping[str, Flag], section: str = ""
) -> dict[str, Given]:
    """Return the entries of a YAML mapping as text: `precision: no` stays "no", `2e-4` "2e-4".

    Args:
        path: the YAML file.
        what: name of the file in an error.
        flags: the flags that are allowed.
        section: name of a mapping in the file to read instead of the whole file.

    Raises:
        UserError: the file is unreadable, not a mapping, or has unknown or repeated names.
    """
    import yaml  # imported late: most commands read no file

    given: dict[str, Given] = {}
    for key, value in _yaml_pairs(path, what, section):
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
        given[name] = Given(texts if is_list else texts[0], f"{line} {name}")
    return given


def _yaml_pairs(path: Path, what: str, section: str) -> list[tuple[Any, Any]]:
    """Return the nodes of names and values of a YAML mapping, as `from_file` reads it."""
    import yaml

    try:
        # Nodes instead of values keep every scalar as written, its line, and repeated keys.
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
    if root is None:  # only comments
        return []
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{what} {path} must hold `name: value` lines, one for each flag")
    return list(root.value)


def _flag_hint(name: str, known: Iterable[str], dash: str = "") -> str:
    """Return the end of an error about an unknown flag: the flag to use, or what to do.

    Args:
        name: the unknown flag.
        known: the flags of the command.
        dash: prefix of a flag's name in the message.
    """
    known = list(known)
    ours = [flag for flag in flags_called(name) if flag in known]
    if ours:
        return f"; here it is {dash}{ours[0]}"
    instead = instead_of(name)
    if instead:
        return f"; {instead}"
    return suggestion(name, known, dash) or "; --help lists every flag"
