"""Which tars a pattern means: braces, a folder, a prefix, a glob, here or in a store."""

import os
from collections.abc import Iterator, Sequence
from glob import escape, glob, has_magic
from pathlib import Path
from urllib.parse import urlsplit

from braceexpand import braceexpand

from data_prep.stores import list_store
from pix2pix.errors import UserError
from pix2pix.system.urls import QUERY_VARIABLE, is_url, unsafe_url

PIPE = "pipe:"

# What unpacks each: samples are read at their offsets, which a compressed tar does not have.
_UNPACK = {
    ".gz": "gunzip",
    ".tgz": "gunzip --suffix .tgz",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd --rm",
}
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_SUFFIXES = (".tar", ".tgz", *(f".tar{end}" for end in (".gz", ".bz2", ".xz", ".zst")))
_HOW = "give braces such as DIR/{00000..00099}.tar, a folder, a prefix or a glob"


def list_shards(patterns: Sequence[str]) -> list[str]:
    """Return the places, paths and URLs, that `patterns` name, in their order.

    Raises UserError where a pattern names nothing, or something twice.
    """
    places: list[str] = []
    for pattern in patterns:
        for name in _expand_braces(pattern):
            if name.startswith(PIPE):
                places.append(name)
                continue
            if is_url(name):
                check_url(name)
            found = list(_matches(name))
            if not found:
                of = f": {name} is not there" if name != pattern else " names no tar"
                raise UserError(f"--shards {pattern}{of}; {_HOW}")
            places += found
    for place, following in zip(sorted(places), sorted(places)[1:], strict=False):
        if place == following:
            raise UserError(f"--shards names {place} twice; name it once")
    for place in places:
        if not place.startswith(PIPE):  # whose output is plain perhaps: `pipe:gunzip -c FILE`
            refuse_compressed(place, b"")
    return places


def refuse_compressed(place: str, start: bytes) -> None:
    """Raise UserError where `place`, by its name or its first bytes, is a compressed tar."""
    by_name = next((end for end in _UNPACK if place.endswith(end)), None)
    kind = by_name or next((end for magic, end in _MAGIC.items() if start.startswith(magic)), None)
    if kind is None:
        return
    program = _UNPACK[kind]
    name = urlsplit(place).path.rpartition("/")[2]
    if is_url(place):
        target = name.removesuffix(kind).removesuffix(".tar") + ".tar"
        command = f"curl -L {place} | {program.split()[0]} > {target}"
    else:
        command = f"{program} {place}"
    raise UserError(
        f"{place} is compressed, so no sample can be read by itself; unpack it, and name what it "
        f"becomes:\n    {command}"
    )


def check_url(url: str) -> None:
    """Raise UserError for a URL that no manifest may name: the next reader would not open it."""
    reason = unsafe_url(url)
    if reason:
        raise UserError(
            f"--shards: {reason}, which has no place in a manifest. Give a query (a signature, "
            f"say) by the environment variable {QUERY_VARIABLE}, to trainings as well"
        )


def _expand_braces(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern, escape=False))
    except ValueError as error:
        raise UserError(f"--shards {pattern}: its braces do not match; {_HOW}") from error


def _matches(name: str) -> Iterator[str]:
    """Return the tars that a name without braces means, sorted."""
    if is_url(name):
        yield from _matches_in_store(name)
    elif Path(name).is_dir():
        below = (str(path) for path in Path(name).rglob("*"))
        yield from sorted(filter(_names_tar, below), key=os.fsencode)
    elif Path(name).exists():
        yield name
    else:
        pattern = name if has_magic(name) else f"{escape(name)}*"
        yield from sorted(filter(_names_tar, glob(pattern)), key=os.fsencode)


def _matches_in_store(url: str) -> Iterator[str]:
    if not has_magic(url) and url.endswith(_SUFFIXES):
        yield url  # whether it is there shows when it is read
        return
    if urlsplit(url).scheme in ("http", "https"):
        raise UserError(
            f"--shards {url}: a web server cannot be asked what it has; give braces such as "
            "https://HOST/DIR/{00000..00099}.tar"
        )
    yield from sorted(filter(_names_tar, list_store(url)), key=os.fsencode)


def _names_tar(name: str) -> bool:
    return name.endswith(_SUFFIXES)
