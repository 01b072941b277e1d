"""Copy shards to a folder, a store or the Hugging Face hub, or from there; verified, resumed.

    python -m data_prep.copy_shards FROM TO

FROM, TO: a folder, or a URL of s3, gs, az or hf; FROM may be http(s), too. Stop it as you like: the
same command goes on where it was. The manifest is written last.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from data_prep.assembly import REJECTED
from data_prep.dataset_card import CARD, count_licenses, dataset_card
from data_prep.shard_file import disk_errors
from data_prep.stores import Target, digest_of, open_target
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.cli.progress import bytes_text, progress
from pix2pix.data.fetch import FetchError, chunks
from pix2pix.data.index import index_path
from pix2pix.data.shards import (
    MANIFEST,
    Manifest,
    Split,
    place_of,
    read_manifest,
    write_manifest,
)
from pix2pix.errors import UserError
from pix2pix.system.urls import is_url, join

_TRIES = 3  # of a transfer that breaks


@dataclass(frozen=True)
class CopyShardsOptions:
    """Flags of `python -m data_prep.copy_shards`."""

    source: str = option(
        help="folder or URL of shards, with their manifest", metavar="FROM", positional=True
    )
    target: str = option(
        help="folder, or URL of s3, gs, az or hf (hf://datasets/OWNER/NAME)",
        metavar="TO",
        positional=True,
    )
    quick: bool = option(
        False, help="of files that are there already compare sizes alone, not SHA-256"
    )


@dataclass(frozen=True)
class Item:
    """A file to copy. place: where it is now. num_bytes, sha256: of it, where they are known.

    needed: its absence is an error. (That it cannot be had is one for any file.)
    """

    name: str
    place: str
    num_bytes: int | None = None
    sha256: str | None = None
    needed: bool = True


def copy_shards(options: CopyShardsOptions) -> int:
    """Copy shards to a folder, a store or the Hugging Face hub, or from there.

    Every file is compared with its size and SHA-256 in the manifest, which is written last. Stop it
    as you like: the same command goes on where it was. README.md, the card of the data set, counts
    its photographs and their licenses.
    """
    source = options.source if is_url(options.source) else os.path.expanduser(options.source)
    _refuse_same(source, options.target)
    manifest = read_manifest(source)
    target = open_target(options.target)
    there = target.sizes()
    with TemporaryDirectory(prefix="copy-") as folder:
        if MANIFEST in there:
            _refuse_others(manifest, options.target)
        items = list(_items(source, manifest))
        todo = [item for item in items if not _is_there(target, there, item, options.quick)]
        total = sum(item.num_bytes or 0 for item in items)
        num_bytes, absent = _copy(target, todo, Path(folder), total)
        last = _write_last(source, options.target, manifest, Path(folder))
        for file in last:  # the manifest after all others
            target.put([(file, file.name)])
    done = len(items) - len(todo)
    if absent:
        print(
            f"note: {source} has no {absent[0]}{_and_more(absent)}: readers do without, and make "
            "indexes themselves"
        )
    print(
        f"{len(todo) - len(absent):,} files copied, {bytes_text(num_bytes)}; {done:,} were there "
        f"already\n"
        f"{options.target} is complete: sizes {'and sums ' if not options.quick else ''}are right"
    )
    return 0


def _and_more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1:,} more such files" if len(names) > 1 else ""


def _refuse_same(source: str, target: str) -> None:
    if (
        not is_url(target)
        and not is_url(source)
        and Path(target).resolve() == Path(source).resolve()
    ):
        raise UserError(f"{source} and {target} are one folder; name another one to copy to")


def _refuse_others(manifest: Manifest, target: str) -> None:
    """Raise UserError if the target is complete, with splits that these shards do not have."""
    for name, split in read_manifest(target).splits.items():
        ours = manifest.splits.get(name)
        if ours is None or ours.digest != split.digest:
            raise UserError(
                f"{target} holds other shards: its split '{name}' is "
                f"{'not here' if ours is None else 'of other content'}; copy to another place, or "
                "remove what is there"
            )


def _items(source: str, manifest: Manifest) -> Iterator[Item]:
    for split in manifest.splits.values():
        for shard in split.shards:
            index = index_path(Path(), shard.name).name
            yield Item(shard.name, place_of(source, shard), shard.bytes, shard.sha256)
            decides = shard.index_sha256 is not None  # else readers can make it
            yield Item(index, join(source, index), None, shard.index_sha256, decides)
    if any(split.rejected for split in manifest.splits.values()):
        yield Item(REJECTED, join(source, REJECTED), needed=False)


def _is_there(target: Target, there: dict[str, int], item: Item, quick: bool) -> bool:
    """Return True if the target has the file, of the right size and, unless `quick`, sum."""
    size = there.get(item.name)
    if size is None or (item.num_bytes is not None and size != item.num_bytes):
        return False
    if item.sha256 is None:  # small, and known by no sum: it is copied again
        return False
    return quick or target.digest(item.name) == item.sha256


def _copy(target: Target, items: Sequence[Item], folder: Path, total: int) -> tuple[int, list[str]]:
    """Copy `items`; return how many bytes they are, and the names of those that are not there."""
    copied, absent = 0, list[str]()
    done = total - sum(item.num_bytes or 0 for item in items)
    with progress("bytes", total, done=done) as bar:
        for start in range(0, len(items), target.batch):
            files = []
            for item in items[start : start + target.batch]:
                file = _local(item, folder)
                if file is None:
                    absent.append(item.name)
                else:
                    files.append((file, item))
            sizes = {item.name: file.stat().st_size for file, item in files}
            target.put([(file, item.name) for file, item in files])
            there = target.sizes()
            for name, size in sizes.items():
                if there.get(name) != size:
                    raise UserError(
                        f"{name} has {there.get(name, 0):,} bytes where it was copied to, not "
                        f"{size:,}; run the same command again"
                    )
            copied += sum(sizes.values())
            bar.update(sum(item.num_bytes or 0 for _, item in files))
            for file, _ in files:
                if file.parent == folder:
                    file.unlink()
    return copied, absent


def _local(item: Item, folder: Path) -> Path | None:
    """Return the item as a file of this machine, as the manifest says it is; None: there is none.

    Raises UserError where it is missing, or not what the manifest says.
    """
    if is_url(item.place):
        path = folder / item.name
        if not _fetch(item, path):
            return None
    else:
        path = Path(item.place)
        if not path.exists():
            if not item.needed:
                return None
            raise UserError(f"{path} is missing; copy or make it again")
    if item.num_bytes is not None and path.stat().st_size != item.num_bytes:
        raise UserError(
            f"{item.place} has {path.stat().st_size:,} bytes, the manifest says "
            f"{item.num_bytes:,}; copy or make it again"
        )
    if item.sha256 is not None and digest_of(path) != item.sha256:
        raise UserError(f"{item.place} was altered: its SHA-256 is another; copy or make it again")
    return path


def _fetch(item: Item, path: Path) -> bool:
    for tries_left in reversed(range(_TRIES)):
        try:
            with disk_errors(path.parent), path.open("wb") as file:
                for chunk in chunks(item.place):
                    file.write(chunk)
            return True
        except FetchError as error:
            path.unlink(missing_ok=True)
            if error.absent and not item.needed:
                return False
            if not (error.passing and tries_left):
                raise
    return False


def _write_last(source: str, target: str, manifest: Manifest, folder: Path) -> list[Path]:
    """Write card and manifest as the target shall have them, and return them in that order."""
    card = folder / CARD
    if is_url(source):
        theirs = Item(CARD, join(source, CARD), needed=False)
        if not _fetch(theirs, card):
            card.write_text(dataset_card(manifest, target, None))
    else:
        licenses = count_licenses(Path(source), manifest.splits.values())
        card.write_text(dataset_card(manifest, target, licenses))
    splits = {name: _beside(split) for name, split in manifest.splits.items()}
    if not is_url(source) and all(splits[name] == manifest.splits[name] for name in splits):
        shutil.copyfile(Path(source) / MANIFEST, folder / MANIFEST)
    else:
        write_manifest(folder, Manifest(splits))
    return [card, folder / MANIFEST]


def _beside(split: Split) -> Split:
    """Return the split with every shard beside the manifest."""
    return replace(split, shards=tuple(replace(shard, url=None) for shard in split.shards))


def command() -> None:
    """`pix2pix-copy-shards`, and this file."""
    main(copy_shards, CopyShardsOptions)


if __name__ == "__main__":
    command()
