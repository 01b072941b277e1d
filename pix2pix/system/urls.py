"""Places of data: a folder or a URL, and which URLs are opened at all (no torch)."""

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from pix2pix.errors import UserError

SCHEMES = ("http", "https", "s3", "gs", "az", "hf")
QUERY_VARIABLE = "PIX2PIX_URL_QUERY"  # a signature, say: it must not stand in flags or files


def is_url(place: str | Path) -> bool:
    """Return True if `place` is a URL, False if it is a path."""
    return "://" in str(place)


def join(root: str | Path, relative: str) -> str:
    """Return the place that the path `relative` names, seen from the folder or URL `root`."""
    if not is_url(root):
        return os.path.normpath(os.path.join(root, relative))
    parts = urlsplit(str(root))
    if parts.scheme in ("http", "https"):
        relative = quote(relative)
    path = posixpath.normpath(posixpath.join("/", parts.path.lstrip("/"), relative))
    return urlunsplit(parts._replace(path=path))


def absolute(place: str) -> str:
    """Return `place` so that it means the same in another folder; a URL stays as it is."""
    return place if is_url(place) else os.path.abspath(os.path.expanduser(place))


def check_place(place: str, flag: str) -> None:
    """Raise UserError unless the `flag`'s value `place` is a folder or a URL that can be opened.

    A user or a signature in it would come into config.json and logs.
    """
    if not place:
        raise UserError(f"--{flag} is empty; name a folder or a URL")
    reason = unsafe_url(place) if ":" in place.partition("/")[0] else None
    if reason:
        raise UserError(
            f"--{flag}: {reason}; name a folder, or a URL of {', '.join(SCHEMES)}. A query, such "
            f"as a signature, goes into the environment variable {QUERY_VARIABLE}; users and "
            "passwords where the tools of that store look for them"
        )


def check_places(shards: Sequence[str], weights: Sequence[int] | None = None) -> None:
    """Raise UserError unless --shards are folders or URLs without a secret, and weights fit."""
    for place in shards:
        check_place(place, "shards")
    if len(set(shards)) < len(shards):
        raise UserError("--shards names a folder twice; --shard_weights says how often it is seen")
    if weights is None:
        return
    if len(weights) != len(shards):
        raise UserError(
            f"--shard_weights has {len(weights)} values for {len(shards)} --shards; give each one"
        )
    if min(weights) < 1:
        raise UserError("--shard_weights: give whole numbers from 1 on")


def unsafe_url(url: str) -> str | None:
    """Return why a manifest must not name `url`, or None: the manifest may be a stranger's.

    Nothing may run a program (`pipe:`), or reach for any file of this machine, and a URL with a
    user or a signature would spread a secret.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    if not parts.scheme and not parts.netloc and ":" not in url.partition("/")[0]:
        return f"the absolute path {url}" if url.startswith("/") or not url else None
    if parts.scheme not in SCHEMES or not parts.netloc:
        scheme = url.partition(":")[0][:20]
        return f"'{scheme}:' is neither a relative path nor one of {', '.join(SCHEMES)}"
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc:
        return f"the URL of {place} carries a user or a password"
    if "?" in url or "#" in url:
        return f"the URL of {place} carries a query or a signature"
    return None
