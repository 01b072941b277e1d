"""Manifest: which shards a split has, and what its content is (no torch).

A split is a list of plain WebDataset tars. The manifest names each with its size and checksum; it
is written last, so a split that it names is complete.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

from pix2pix.data.index import index_path
from pix2pix.errors import UserError
from pix2pix.system.durable import publish
from pix2pix.system.urls import is_url, join, unsafe_url

FORMAT = "pix2pix-shards"
VERSION = 1  # of a folder of prepared shards
VERSION_WITH_URLS = 2  # of one that names shards elsewhere, or shards that others made
MANIFEST = "manifest.json"

# Published preprocessing: enlarge to 286, crop 256 at random (Isola et al. 2017, section 6.2).
CROP_OF_SHORT_SIDE = 256 / 286

Kind = Literal["pairs", "pictures"]

_MAKE = "python -m data_prep.make_shards --photos DIR --out {root} --split {split}"
_MOST_MANIFEST = 2**28  # bytes; 100,000 shards are 20 MB
_NAME = re.compile(r"[^./][^/]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """One tar file: name, number of samples, size in bytes, SHA-256 in hex.

    name: unique in its manifest, without a slash; its index is NAME.index.npz.
    url: where the tar lies: an absolute URL (`system.urls.SCHEMES`), or a path relative to the
        manifest; None: under its name, beside the manifest.
    index_sha256: of the index, where that decides which samples the shard has.
    """

    name: str
    num_samples: int
    bytes: int
    sha256: str
    url: str | None = None
    index_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def identity(self) -> str:
        """A line that is equal for equal content, wherever it lies."""
        index = f" {self.index_sha256}" if self.index_sha256 else ""
        return f"{self.sha256} {self.num_samples}{index}\n"


@dataclass(frozen=True)
class Split:
    """One split, "train" say. `prep`: what it was made with; `rejected`: photographs per reason.

    kind: "pairs" of a gray and a color JPEG of one short side, as preparation makes them, or
    "pictures" as others packed them, of any size and format.
    """

    name: str
    shards: tuple[Shard, ...]
    prep: dict[str, Any]
    rejected: dict[str, int]
    kind: Kind = "pairs"

    @property
    def num_samples(self) -> int:
        """Samples of all shards together."""
        return sum(self.sample_counts)

    @property
    def short_side(self) -> int:
        """Short side of every picture as a reader gives it, in pixels."""
        return int(self.prep["short_side"])

    def at(self, image_size: int) -> "Split":
        """Return this split as a training at `image_size` reads it.

        Pictures are reduced to the short side that preparation would have given them.
        """
        if self.kind == "pairs":
            return self
        short_side = math.ceil(image_size / CROP_OF_SHORT_SIDE)
        return replace(self, prep=self.prep | {"short_side": short_side})

    @property
    def is_prepared(self) -> bool:
        """True if it is pairs whose shards lie beside the manifest."""
        beside = all(shard.url is None and shard.index_sha256 is None for shard in self.shards)
        return self.kind == "pairs" and beside

    @property
    def sample_counts(self) -> tuple[int, ...]:
        """Samples of each shard, in manifest order."""
        return tuple(shard.num_samples for shard in self.shards)

    @property
    def digest(self) -> str:
        """Identity of the content, in hex: equal for equal shards, wherever they lie."""
        return sha256("".join(shard.identity for shard in self.shards).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The splits of one folder of shards, by name."""

    splits: dict[str, Split]


def identity_of(splits: Sequence[Split], weights: Sequence[int] = ()) -> str:
    """Identity of what several data sets train together; of a single one, its digest.

    weights: how often each is seen in an epoch; none: once.
    """
    weights = weights or (1,) * len(splits)
    if len(splits) == 1 and weights[0] == 1:
        return splits[0].digest
    return " ".join(f"{s.digest}*{weight}" for s, weight in zip(splits, weights, strict=True))


def read_manifest(root: str | Path) -> Manifest:
    """Return the manifest of a folder or URL; raises UserError if it has none, or none of ours."""
    path = join(root, MANIFEST)
    make = f"make the shards again with: {_MAKE.format(root=root, split='train')}"
    mend = "look at the URL, and at who wrote there" if is_url(root) else make
    data = _read_url(path) if is_url(root) else _read_file(Path(root))
    try:
        content = json.loads(data)
    except ValueError:
        raise UserError(f"{path} is not JSON; {mend}") from None
    return parse_manifest(content, path, mend)


def _read_url(path: str) -> bytes:
    from pix2pix.data.fetch import read_all  # only sets at a URL need it

    return read_all(path, _MOST_MANIFEST)


def _read_file(root: Path) -> bytes:
    make = _MAKE.format(root=root, split="train")
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; make one with: {make}")
    try:
        return (root / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{root} has no {MANIFEST}, which is written last: make the shards, or go on making "
            f"them, with: {make}"
        ) from None
    except OSError as error:
        raise UserError(f"{root / MANIFEST} cannot be read: {error.strerror}") from error


def parse_manifest(content: object, path: str, mend: str) -> Manifest:
    """Return the manifest whose JSON is `content`; `path` and `mend` (what to do) are for errors.

    Raises UserError where it is none of ours, damaged, or names what must not be opened.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is no manifest of shards; {mend}")
    if content.get("version") not in (VERSION, VERSION_WITH_URLS):
        raise UserError(
            f"{path} has format version {content.get('version')}, this program reads {VERSION} and "
            f"{VERSION_WITH_URLS}; {mend}"
        )
    try:
        splits = {name: _parse(name, split) for name, split in content["splits"].items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is damaged; {mend}") from None
    for split in splits.values():
        for shard in split.shards:
            reason = shard.url and unsafe_url(shard.url)
            if reason:
                raise UserError(f"{path} names a shard that is not opened: {reason}")
    return Manifest(splits)


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Publish `manifest` in the folder `root`: equal manifests give equal bytes."""
    splits = {
        name: {
            "num_samples": split.num_samples,
            "prep": split.prep,
            "rejected": split.rejected,
            "shards": [shard.to_json() for shard in split.shards],
            **({} if split.kind == "pairs" else {"kind": split.kind}),
        }
        for name, split in manifest.splits.items()
    }
    prepared = all(split.is_prepared for split in manifest.splits.values())
    version = VERSION if prepared else VERSION_WITH_URLS
    content = {"format": FORMAT, "version": version, "splits": splits}
    publish(Path(root) / MANIFEST, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def place_of(root: str | Path, shard: Shard) -> str:
    """Where the tar of a shard lies, whose manifest is in the folder or at the URL `root`."""
    if shard.url is not None and is_url(shard.url):
        return shard.url
    return join(root, shard.name if shard.url is None else shard.url)


def open_split(root: str | Path, name: str) -> Split:
    """Return the split `name` of a folder or URL; its shards that are files have the right size.

    Sizes catch what goes wrong in copying and cost a `stat` each; SHA-256 sums are for verifying,
    and for what is fetched. Raises UserError.
    """
    split = read_split(root, name)
    for shard in split.shards:
        if not is_url(place_of(root, shard)):
            check_shard(root, name, shard)
    return split


def read_split(root: str | Path, name: str) -> Split:
    """Return what the manifest says of the split `name`; raises UserError where it has none."""
    splits = read_manifest(root).splits
    if name not in splits:
        there = ", ".join(sorted(splits)) or "none"
        make = "" if is_url(root) else f", or make it with: {_MAKE.format(root=root, split=name)}"
        raise UserError(f"{root} has no split '{name}' (there: {there}); name one of those{make}")
    return splits[name]


def check_shard(root: str | Path, split: str, shard: Shard) -> None:
    """Raise UserError unless the file of `shard` is there, with as many bytes as it should have.

    The index of one that others made decides what its samples are: its sum is compared, too.
    """
    path = Path(place_of(root, shard))
    mend = f"copy it again, or make it again with: {_MAKE.format(root=root, split=split)}"
    if shard.index_sha256 is not None:
        mend = "copy it again, or run data_prep.index_shards again"
    try:
        size = path.stat().st_size
    except OSError:
        raise UserError(f"the shard {path} is missing; {mend}") from None
    if size != shard.bytes:
        raise UserError(
            f"the shard {path} was altered: it has {size:,} bytes, the manifest says "
            f"{shard.bytes:,}; {mend}"
        )
    if shard.index_sha256 is not None:
        index = index_path(Path(root), shard.name)
        try:
            found = sha256(index.read_bytes()).hexdigest()
        except OSError:
            raise UserError(f"the index {index} is missing; {mend}") from None
        if found != shard.index_sha256:
            raise UserError(f"the index {index} was altered; {mend}")


def _parse(name: str, split: Mapping[str, Any]) -> Split:
    """Return a split of a manifest; raises KeyError, TypeError or ValueError if damaged."""
    shards = tuple(Shard(**shard) for shard in split["shards"])
    for shard in shards:
        if not _NAME.fullmatch(shard.name) or shard.num_samples < 0 or shard.bytes < 0:
            raise ValueError(shard)
        if not all(_SHA256.fullmatch(s) for s in (shard.sha256, shard.index_sha256) if s):
            raise ValueError(shard)
    kind = split.get("kind", "pairs")
    if kind not in ("pairs", "pictures"):
        raise ValueError(kind)
    prep, rejected = dict(split["prep"]), dict(split["rejected"])
    return Split(name, shards, prep, rejected, cast("Kind", kind))
