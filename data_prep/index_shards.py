"""Make shards that others packed ready to train on, as they are: read once, nothing is copied.

    python -m data_prep.index_shards --shards 'https://host/{000000..000099}.tar' --out DIR

Any WebDataset with one picture a sample will do. DIR then has a manifest that names the tars where
they lie, and an index of each. Stop it as you like: the same command goes on where it was.
"""

import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_prep.assembly import Made, manifest_so_far, publish_splits
from data_prep.found_shard import COUNTED_BYTES, look_through
from data_prep.index_task import Found, IndexPrep, IndexTask, read_found
from data_prep.make_shards import report
from data_prep.ownership import own
from data_prep.shard_file import Reject, differences, disk_errors
from data_prep.shard_list import PIPE, list_shards
from data_prep.workers import work_in_parallel
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.cli.progress import progress
from pix2pix.data.index import ShardIndex, index_path, write_index
from pix2pix.data.shards import Manifest, Shard, Split
from pix2pix.errors import UserError
from pix2pix.system.durable import leftovers
from pix2pix.system.machine import num_cores
from pix2pix.system.urls import is_url

IMAGES = ("jpg", "jpeg", "png", "webp")

_SPLIT_NAME = re.compile(r"[a-z0-9_]+")
_LOOK_SECONDS = 2.0  # between looks at how many shards are done


@dataclass(frozen=True)
class IndexShardsOptions:
    """Flags of `python -m data_prep.index_shards`."""

    shards: tuple[str, ...] = option(
        help="tars: paths or URLs with braces, folders, prefixes or globs; pipe:COMMAND as well",
        metavar="PATTERN",
        many="words",
    )
    out: Path = option(help="folder for the manifest and the indexes", metavar="DIR")
    split: str = option("train", help="name of the split that they are", metavar="NAME")
    image: tuple[str, ...] = option(
        IMAGES, help="extensions of the member that is the picture", metavar="LIST"
    )
    train_from: str | None = option(
        None,
        help="where trainings find the same tars, with braces; none is where they are read now",
        metavar="PATTERN",
    )
    num_workers: int = option(0, help="processes; 0 is one per core", unit="processes")
    min_chroma: float = option(
        4.0, help="least mean of max - min of R, G, B, to tell color from gray", unit="0..255"
    )
    min_short_side: int = option(256, help="least short side of a picture", unit="pixels")
    licenses: tuple[str, ...] | None = option(
        None, help="keep only pictures under these, as the samples' JSON names them", metavar="LIST"
    )

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 0), ("min_chroma", 0), ("min_short_side", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name):g}: give {least} or more")
        if not _SPLIT_NAME.fullmatch(self.split):
            raise UserError(
                f"--split '{self.split}': a name of small letters, digits and _ is needed"
            )


def index_shards(options: IndexShardsOptions) -> int:
    """Make shards that others packed ready to train on; nothing is copied or encoded again.

    Stop it as you like: the same command goes on where it was. What cannot be trained on is left
    out, and named with the reason in rejected.jsonl.
    """
    started = time.monotonic()
    tasks = _plan(options)
    root = options.out
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with own(root):
            manifest = manifest_so_far(root)
            if _is_finished(root, options.split, tasks[0].prep, manifest):
                print(f"nothing to do: {root} is finished")
                return 0
            for file, _ in leftovers(root):
                file.unlink()
            _look_through_all(tasks, options.num_workers or num_cores())
            made = _assemble(options.split, tasks)
            publish_splits(root, [made], manifest)
            for task in tasks:
                task.found_file.unlink(missing_ok=True)
    report(root, made.split)
    num_pictures = made.split.num_samples + len(made.rejects)
    seconds = time.monotonic() - started
    print(f"{num_pictures:,} samples in {seconds:.0f} s, {num_pictures / seconds:.0f} per second")
    print(
        f"To train on them: accelerate launch scripts/train.py --shards {root} --run_dir runs/NAME"
    )
    return 0


def _plan(options: IndexShardsOptions) -> list[IndexTask]:
    """Return a task for each tar. Raises UserError for what a manifest must not name."""
    places = list_shards(options.shards)
    if options.train_from is not None:
        urls = list_shards([options.train_from])
        if len(urls) != len(places):
            raise UserError(
                f"--train_from names {len(urls):,} tars, --shards {len(places):,}; they are to be "
                "the same ones in the same order"
            )
    else:
        urls = places
    if any(url.startswith(PIPE) for url in urls):
        raise UserError(
            "--shards pipe:… needs --train_from PATTERN, which says where trainings find these "
            "tars: a manifest runs no commands"
        )
    named = [_as_named(options.out, url) for url in urls]
    prep = IndexPrep(
        places=sha256("\n".join(named).encode()).hexdigest()[:16],
        num_shards=len(named),
        image=tuple(kind.lower().lstrip(".") for kind in options.image),
        min_short_side=options.min_short_side,
        min_chroma=options.min_chroma,
        licenses=options.licenses,
    )
    names = _names(options.split, named)
    return [
        IndexTask(options.out, place, name, url, prep)
        for place, name, url in zip(places, names, named, strict=True)
    ]


def _as_named(out: Path, url: str) -> str:
    """`url` as the manifest in `out` names it: of a path, the way from there."""
    if is_url(url):
        return url
    return Path(os.path.relpath(Path(url).resolve(), out.resolve())).as_posix()


def _names(split: str, urls: Sequence[str]) -> list[str]:
    """Return a name for each, unique in the folder: other splits lie there, too."""
    bases = [url.rpartition("/")[2] for url in urls]
    if len(set(bases)) < len(bases):
        bases = [f"{number:06d}-{base}" for number, base in enumerate(bases)]
    begin = f"{split}-"
    return [base if base.startswith(begin) else begin + base for base in bases]


def _is_finished(root: Path, split: str, prep: IndexPrep, manifest: Manifest) -> bool:
    """Return True if the manifest has the split, made with `prep`; another `prep` is refused."""
    if split not in manifest.splits:
        return False
    earlier, wanted = manifest.splits[split].prep, json.loads(json.dumps(asdict(prep)))
    if earlier != wanted:
        raise UserError(
            f"{root} holds a split '{split}' made with other parameters or shards: "
            f"{differences(earlier, wanted)}. Give the same ones, or another --out or --split"
        )
    shards = manifest.splits[split].shards
    return all(index_path(root, shard.name).exists() for shard in shards)


def _look_through_all(tasks: Sequence[IndexTask], num_workers: int) -> None:
    done = {task: found.bytes for task in tasks if (found := read_found(task)) is not None}
    todo = [task for task in tasks if task not in done]
    with progress("bytes", _total_bytes(tasks), done=sum(done.values())) as bar:
        looked = -math.inf

        def advance(count: int) -> None:
            nonlocal looked
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                finished = len(done) + sum(task.found_file.exists() for task in todo)
                bar.set_postfix_str(f"{finished:,} of {len(tasks):,} shards", refresh=False)
            bar.update(count * COUNTED_BYTES)

        work_in_parallel(look_through, todo, num_workers, advance)


def _total_bytes(tasks: Sequence[IndexTask]) -> int | None:
    """Return the size of all tars; None where one lies elsewhere, and nobody knows its size."""
    try:
        return sum(os.path.getsize(task.place) for task in tasks)
    except OSError:
        return None


def _assemble(split: str, tasks: Sequence[IndexTask]) -> Made:
    """Write the index of each shard, without copies, and return the split."""
    found = [_found_of(task) for task in tasks]
    is_copy = _copies([one.digests for one in found])
    shards: list[Shard] = []
    rejects: list[Reject] = []
    for task, one, copies in zip(tasks, found, is_copy, strict=True):
        names = [f"{task.name}/{key.decode(errors='replace')}" for key in one.keys[copies].tolist()]
        rejects += [*one.rejects, *(Reject(name, "duplicate") for name in names)]
        kept = ~copies
        if kept.any():
            places = {member: table[kept] for member, table in one.places.items()}
            index = ShardIndex(one.sha256, one.keys[kept], places)
            digest = write_index(index_path(task.root, task.name), index)
            count = int(kept.sum())
            shard = Shard(task.name, count, one.bytes, one.sha256, task.url, digest)
            shards.append(shard)
    reasons = Counter(reject.reason for reject in rejects)
    prep = json.loads(json.dumps(asdict(tasks[0].prep)))
    counts = dict(sorted(reasons.items()))
    return Made(Split(split, tuple(shards), prep, counts, "pictures"), tuple(rejects))


def _found_of(task: IndexTask) -> Found:
    found = read_found(task)
    if found is None:
        raise UserError(f"{task.found_file} is gone while shards were read; run the command again")
    return found


def _copies(digests: Sequence[NDArray[np.uint64]]) -> list[NDArray[np.bool_]]:
    """Which samples have the picture of an earlier one, byte for byte: a mask for each shard."""
    everything = np.concatenate(digests)
    order = np.lexsort((everything[:, 1], everything[:, 0]))  # stable: the first stays first
    again = np.zeros(len(everything), dtype=np.bool_)
    again[order[1:]] = (everything[order[1:]] == everything[order[:-1]]).all(axis=1)
    ends = np.cumsum([len(one) for one in digests])
    return np.split(again, ends[:-1])


def command() -> None:
    """`pix2pix-index-shards`, and this file."""
    main(index_shards, IndexShardsOptions)


if __name__ == "__main__":
    command()
