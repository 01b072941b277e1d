"""Flags as dataclass fields with a type, a default and one line of help, and the parser of values.

The same parser reads a value from a command line and from a file.
"""

import dataclasses
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pix2pix.errors import UserError

Many = Literal["commas", "words", "repeats"]

_SEVERAL = {
    "commas": ", or several separated by commas",
    "words": ", or several separated by blanks",
    "repeats": "; the flag may be repeated",
}


def option(
    default: Any = MISSING,
    *,
    help: str,
    unit: str = "",
    metavar: str = "",
    group: str = "",
    choices: Sequence[str] = (),
    positional: bool = False,
    many: Many = "commas",
) -> Any:
    """Declare a field of an options dataclass as the flag `--name`; required without a default.

    The field's type is str, int, float, bool, Path, a Literal of strings, `tuple[T, ...]` of these,
    or `T | None`, where `none` means None. Every command has flags `config` and `help` already.

    Args:
        default: the value when the flag is absent.
        help: one line for `--help`.
        unit: what the value counts (`steps`), shown in place of the value in `--help`.
        metavar: shown in place of the value, if there is no unit (`DIR`).
        group: the heading under which `--help` lists this flag and those after it.
        choices: the allowed values, if a Literal cannot list them.
        positional: the value may also stand without its flag; several do so in their order.
        many: how several values of a tuple are written. `commas`: `--sizes 1,2`. `words`: all
            arguments before the next flag, `--photos a b`. `repeats`: `--sbatch x=1 --sbatch y=2`.
            With the last two a comma is part of a value.

    Returns:
        The dataclass field.
    """
    details = {
        "help": help,
        "metavar": metavar or unit.upper(),
        "group": group,
        "choices": tuple(choices),
        "positional": positional,
        "many": many,
    }
    return dataclasses.field(default=default, kw_only=True, metadata=details)


class _Kind(NamedTuple):
    """How a type is read, shown in `--help` and described in errors."""

    read: Callable[[str], Any]  # raises ValueError
    metavar: str
    expected: str


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _read_bool(text: str) -> bool:
    word = text.lower()
    if word not in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        raise ValueError(text)
    return word in ("true", "yes", "on", "1")


def _read_path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # shells do not expand the ~ of --flag=~/folder


_KINDS = {
    str: _Kind(str, "TEXT", "text"),
    int: _Kind(int, "N", "a whole number such as 1000"),
    float: _Kind(_read_float, "X", "a number such as 0.5 or 2e-4"),
    bool: _Kind(_read_bool, "true|false", "true or false"),
    Path: _Kind(_read_path, "PATH", "a path"),
}


@dataclass(frozen=True)
class Flag:
    """One flag as its dataclass declares it; `default` is MISSING if it is required."""

    name: str
    kind: type  # a key of _KINDS: what one value is
    optional: bool
    many: Many | None  # None: one value
    choices: tuple[str, ...]
    default: Any
    help: str
    metavar: str
    group: str
    positional: bool

    @property
    def required(self) -> bool:
        """Return True if the flag has no default."""
        return self.default is MISSING

    @property
    def expected(self) -> str:
        """Return a description of the values of this flag."""
        words = enumerate_words(self.choices, "or") if self.choices else _KINDS[self.kind].expected
        words += _SEVERAL[self.many] if self.many else ""
        return words + ", or none" if self.optional else words

    @property
    def default_text(self) -> str:
        """Return the default as it is written after the flag."""
        if isinstance(self.default, tuple):
            return ("," if self.many == "commas" else " ").join(map(str, self.default)) or "none"
        if isinstance(self.default, float):
            return f"{self.default:g}"
        is_word = self.default is None or isinstance(self.default, bool)
        return str(self.default).lower() if is_word else str(self.default)

    def read(self, raw: str | list[str], where: str) -> Any:
        """Return the typed value of `raw`: text, or a list of texts from a file.

        Raises:
            UserError: it is not a value of this flag; the message begins with `where`.
        """
        only = raw[0] if isinstance(raw, list) and len(raw) == 1 else raw
        if self.optional and only in ("none", "None", "null"):
            return None
        if isinstance(raw, list):
            if self.many is None:
                raise UserError(f"{where} takes one value, not a list: {self.expected}")
            return tuple(self._read_one(text, where) for text in raw)
        if self.many:
            texts = raw.split(",") if self.many == "commas" else [raw]
            return tuple(self._read_one(text.strip(), where) for text in texts)
        return self._read_one(raw, where)

    def _read_one(self, text: str, where: str) -> Any:
        if not text:
            raise UserError(f"{where} needs a value: {self.expected}")
        if self.choices and text not in self.choices:
            hint = suggestion(text, self.choices)
            raise UserError(f"{where} expects {self.expected}, not '{text}'{hint}")
        try:
            return _KINDS[self.kind].read(text)
        except ValueError:
            raise UserError(f"{where} expects {self.expected}, not '{text}'") from None


def flags_of(*classes: type) -> dict[str, Flag]:
    """Return the flags of options dataclasses by name, in the order of their fields.

    Raises:
        TypeError: a field has a type that flags do not support, or two classes have a field of one
            name.
    """
    flags: dict[str, Flag] = {}
    for options in classes:
        hints = typing.get_type_hints(options)
        group = "options"
        for field in dataclasses.fields(options):
            if field.name in flags:
                raise TypeError(f"two options classes have a field {field.name}")
            group = field.metadata.get("group") or group
            flags[field.name] = _flag(field, hints[field.name], group)
    return flags


def arguments_of(options: object) -> list[str]:
    """Return the command line that gives an options dataclass these values."""
    arguments = []
    for name, flag in flags_of(type(options)).items():
        value = getattr(options, name)
        if value is None:
            arguments.append(f"--{name}=none")
        elif flag.many == "words":
            first, *others = map(str, value)
            arguments += [f"--{name}={first}", *others]
        elif flag.many == "repeats":
            arguments += [f"--{name}={one}" for one in value]
        elif flag.many == "commas":
            arguments.append(f"--{name}={','.join(map(str, value))}")
        else:
            arguments.append(f"--{name}={value}")
    return arguments


def _flag(field: "dataclasses.Field[Any]", hint: Any, group: str) -> Flag:
    optional = False
    many: Many | None = None
    choices = field.metadata.get("choices", ())
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not types.NoneType]
        optional = len(members) < len(typing.get_args(hint))
        hint = members[0] if len(members) == 1 else hint
    if typing.get_origin(hint) is tuple:
        many = field.metadata.get("many", "commas")
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        hint = str
    if hint not in _KINDS:
        raise TypeError(f"field {field.name}: flags do not support the type {hint}")
    metavar = "|".join(choices) or _KINDS[hint].metavar
    metavar = field.metadata.get("metavar") or metavar + (",…" if many == "commas" else "")
    return Flag(
        name=field.name,
        kind=hint,
        optional=optional,
        many=many,
        choices=choices,
        default=field.default,
        help=field.metadata.get("help", ""),
        metavar=f"{metavar} …" if many == "words" else metavar,
        group=group,
        positional=field.metadata.get("positional", False),
    )


def enumerate_words(words: Iterable[object], joint: str) -> str:
    """Return `a, b and c` for joint "and"."""
    *head, last = [str(word) for word in words]
    return f"{', '.join(head)} {joint} {last}" if head else last


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean --seed?`, or "" if no known name is similar.

    A misspelt name has one near neighbor. A name from another program may share a word with ours:
    then up to two of them are suggested.
    """
    words = set(name.split("_"))
    near = {
        other: SequenceMatcher(None, name.lower(), other.lower()).ratio()
        + 0.2 * bool(words & set(other.split("_")))
        for other in known
    }
    best = sorted((other for other in near if near[other] >= 0.6), key=lambda o: -near[o])[:2]
    if best and near[best[0]] >= 0.85:
        best = best[:1]
    if not best:
        return ""
    return f"; did you mean {enumerate_words([prefix + other for other in best], 'or')}?"


@dataclass(frozen=True)
class _EveryCommand:
    config: Path | None = option(
        None,
        help="YAML file of `name: value` lines for these flags; flags override it",
        metavar="FILE",
        group="every command",
    )


CONFIG = flags_of(_EveryCommand)["config"]
