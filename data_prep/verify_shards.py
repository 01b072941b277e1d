"""Check that shards are what their manifest says, and that every picture can be read.

    python -m data_prep.verify_shards --shards DIR

Exit status 0: sound. 1: damaged, and every fault is told, with what to do. 2: nothing to check.
"""

import json
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.shard_check import Checked, CheckTask, Fault, check_shard
from data_prep.workers import work_in_parallel
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.cli.progress import progress
from pix2pix.data.cache import ShardCache, cache_folder
from pix2pix.data.data_set import DataSet
from pix2pix.data.shards import Split, read_manifest, read_split
from pix2pix.errors import UserError
from pix2pix.system.durable import leftovers
from pix2pix.system.machine import num_cores
from pix2pix.system.urls import check_place, is_url

_MOST_TOLD = 30  # faults, and files to delete; the others are counted
_SHARD_FILE = re.compile(r"(.+)-\d{6,}\.(?:tar|json)")


@dataclass(frozen=True)
class VerifyShardsOptions:
    """Flags of `python -m data_prep.verify_shards`."""

    shards: str = option(help="folder or URL with shards and manifest", metavar="DIR|URL")
    split: str | None = option(None, help="only this split; none is every split", metavar="NAME")
    quick: bool = option(False, help="sizes and indexes only: no sums, no pictures")
    num_workers: int = option(
        0, help="processes; 0 is one per core, or one for --quick", unit="processes"
    )

    shards_cache: str | None = option(
        None, help="where shards of a URL pass through; none is as in training", metavar="DIR"
    )

    def __post_init__(self) -> None:
        check_place(str(self.shards), "shards")
        if self.num_workers < 0:
            raise UserError(f"--num_workers {self.num_workers}: give 0 or more")


def verify_shards(options: VerifyShardsOptions) -> int:
    """Check that shards are what their manifest says, and that every picture can be read.

    The exit status is 0 if they are sound, 1 if not: then every fault is told, with what to do.
    """
    root = os.path.expanduser(options.shards)
    manifest = read_manifest(root).splits
    splits = [read_split(root, options.split)] if options.split else list(manifest.values())
    data_sets = _open(root, splits, options)
    checked = _check(options, data_sets)
    faults = [fault for shards in checked for shard in shards for fault in shard.faults]
    faults += _repeated_keys(splits, checked)
    faults += _unknown_shards(root, splits)
    for split in splits:
        kind, count = split.kind, split.num_samples
        print(f"{split.name}: {count:,} {kind} in {_count(split.shards, 'shard')}")
    for note in _notes(root, manifest):
        print(f"note: {note}")
    if faults:
        _tell(root, faults, all(split.is_prepared for split in splits) and not is_url(root))
        return 1
    seen = "sizes and indexes are right" if options.quick else "every sum and picture is right"
    print(f"{root} is sound: {seen}")
    return 0


def _open(root: str, splits: Sequence[Split], options: VerifyShardsOptions) -> list[DataSet]:
    """Return the splits, with a cache for shards that lie at a URL."""
    data_sets = [DataSet(root, split) for split in splits]
    if not any(data.needs_cache for data in data_sets):
        return data_sets
    if options.quick:
        raise UserError(
            "--quick looks at sizes of files, and these shards lie at a URL; leave it out, and "
            "they are fetched"
        )
    cache = ShardCache(cache_folder(options.shards_cache))
    return [replace(data, cache=cache) for data in data_sets]


def _check(options: VerifyShardsOptions, data_sets: Sequence[DataSet]) -> list[list[Checked]]:
    """Return what was seen of each shard, by split."""
    tasks = [
        CheckTask(data, shard, options.quick) for data in data_sets for shard in data.split.shards
    ]
    num_workers = options.num_workers or (1 if options.quick else num_cores())
    with progress("samples", sum(data.split.num_samples for data in data_sets)) as bar:
        seen = iter(work_in_parallel(check_shard, tasks, num_workers, bar.update))
    return [[next(seen) for _ in data.split.shards] for data in data_sets]


def _repeated_keys(
    splits: Sequence[Split], checked: Sequence[Sequence[Checked]]
) -> Iterator[Fault]:
    """Find keys that come again in a split, or in the one that was cut off from it."""
    lists = defaultdict[str, list[tuple[str, NDArray[np.bytes_]]]](list)
    for split, shards in zip(splits, checked, strict=True):
        cut = json.dumps(split.prep) if split.prep.get("val_fraction") else split.name
        names = [shard.name for shard in split.shards]
        lists[cut] += zip(names, [shard.keys for shard in shards], strict=True)
    for keyed in lists.values():
        keys = np.concatenate([np.empty(0, np.bytes_), *(keys for _, keys in keyed)])
        owners = np.repeat(np.arange(len(keyed)), [len(keys) for _, keys in keyed])
        order = np.argsort(keys, kind="stable")
        again = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        for first, second in zip(order[again], order[again + 1], strict=True):
            problem = f"the same key is in {keyed[owners[first]][0]}"
            yield Fault(keyed[owners[second]][0], problem, keys[second].decode())


def _unknown_shards(root: str, splits: Sequence[Split]) -> Iterator[Fault]:
    """Find tars that a reader of SPLIT-*.tar would take in, and the manifest does not name."""
    for split in splits:
        if is_url(root) or split.kind == "pictures":
            continue
        known = {shard.name for shard in split.shards}
        for path in sorted(Path(root).glob(f"{split.name}-*.tar")):
            if path.name not in known:
                yield Fault(path.name, "is not in the manifest")


def _notes(root: str, manifest: Mapping[str, Split]) -> Iterator[str]:
    """Yield what is no fault of the shards, but may be a surprise."""
    for one, other in combinations(manifest.values(), 2):
        photos = one.prep.get("photos")
        are_one_cut = one.prep == other.prep and one.prep.get("val_fraction")
        if photos and photos == other.prep.get("photos") and not are_one_cut:
            yield f"{one.name} and {other.name} are made of the same photographs"
    if is_url(root):
        return
    folder = Path(root)
    matches = (_SHARD_FILE.fullmatch(path.name) for path in folder.iterdir())
    for split in sorted({match[1] for match in matches if match} - manifest.keys()):
        yield (
            f"{split} is not in the manifest yet: go on with make_shards, or with merge_shards "
            "if all its parts are done"
        )
    left = [file.name for file, _ in leftovers(folder)]
    if left:
        yield (
            f"{_count(left, 'file')} of a run that was killed, or is running now: {left[0]}"
            f"{', …' if left[1:] else ''}; the same make_shards removes them"
        )


def _tell(root: str, faults: Sequence[Fault], mended: bool) -> None:
    """Print the faults, and how to mend them. mended: make_shards can make the shards again."""
    for fault in faults[:_MOST_TOLD]:
        print(f"{' '.join(filter(None, [fault.shard, fault.key]))}: {fault.problem}")
    if len(faults) > _MOST_TOLD:
        print(f"… and {len(faults) - _MOST_TOLD:,} more")
    shards = sorted({fault.shard for fault in faults})
    damage = f"{root} is damaged: {_count(faults, 'fault')} in {_count(shards, 'shard')}."
    if not mended:
        print(f"{damage} Copy these\nshards again from where they are sound, or index them again.")
        return
    print(
        f"{damage} Copy these "
        "shards again from where they\nare sound, or delete them and run the same make_shards as "
        "before: it makes them\nagain, to the same bytes."
    )
    for name in shards[:_MOST_TOLD]:
        tar = Path(root) / name
        print(f"    rm -f {shlex.quote(str(tar))} {shlex.quote(str(tar.with_suffix('.json')))}")
    if len(shards) > _MOST_TOLD:
        print(f"    … and {len(shards) - _MOST_TOLD:,} more")


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def command() -> None:
    """Run `pix2pix-verify-shards`, and this file."""
    main(verify_shards, VerifyShardsOptions)


if __name__ == "__main__":
    command()
