"""Photographs → tar shards and manifest: what goes into which shard, and what is left to do.

Shard i is slice i of a seeded permutation of the sources, so every shard is a task of its own:
any number of processes makes the same bytes, and a run that was killed goes on where it was.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data_prep.assembly import (
    REJECTED,
    assemble,
    is_published,
    manifest_so_far,
    publish_splits,
)
from data_prep.ownership import Part, own
from data_prep.photos import Photo, Source
from data_prep.shard_file import (
    EARLIER_WRITER,
    Prep,
    ShardTask,
    Sidecar,
    differences,
    disk_errors,
    finished_sidecar,
    make_shard,
    read_sidecar,
    tell_earlier_writer,
)
from data_prep.workers import work_in_parallel
from pix2pix.cli.progress import progress
from pix2pix.data.order import permutation
from pix2pix.data.shards import MANIFEST, Manifest
from pix2pix.errors import UserError
from pix2pix.system.durable import leftovers

VAL = "val"

_SPLIT_NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class SplitPlan:
    """The shards of one split, each a task."""

    root: Path
    split: str
    prep: Prep
    tasks: tuple[ShardTask, ...]

    @property
    def num_photos(self) -> int:
        """Return how many photographs this split has, before any is rejected."""
        return sum(len(task.members) for task in self.tasks)


def plan_splits(
    root: Path,
    split: str,
    source: Source,
    photos: list[Photo],
    prep: Prep,
    others: tuple[str, ...] = (),
) -> tuple[SplitPlan, ...]:
    """Plan the split of all `photos`; with a `val_fraction`, also the split "val".

    photos: sorted by the bytes of their names, as sources list them. others: names of files of
    other kinds, which the first shard of `split` lists among its rejects.
    """
    if not _SPLIT_NAME.fullmatch(split):
        raise UserError(f"--split '{split}': a name of small letters, digits and _ is needed")
    members = list(enumerate(photos))
    chosen = {split: members}
    if prep.val_fraction:
        num_val = split_sizes(split, prep)[VAL]
        kept_out = set(permutation(len(photos), prep.seed, VAL)[:num_val].tolist())
        chosen = {
            split: [member for member in members if member[0] not in kept_out],
            VAL: [member for member in members if member[0] in kept_out],
        }
    plans = [_plan_split(root, name, source, chosen[name], prep) for name in chosen]
    first, *later = plans[0].tasks
    plans[0] = replace(plans[0], tasks=(replace(first, others=others), *later))
    return tuple(plans)


def split_sizes(split: str, prep: Prep) -> dict[str, int]:
    """Return how many photographs `split` has, and the split "val" that is cut off from it."""
    if not prep.val_fraction:
        return {split: prep.num_photos}
    num_val = round(prep.val_fraction * prep.num_photos)
    if split == VAL:
        raise UserError("--val_fraction cuts off the split 'val'; give --split another name")
    if not 0 < num_val < prep.num_photos:
        raise UserError(
            f"--val_fraction {prep.val_fraction:g} of {prep.num_photos} photographs leaves one "
            "split empty; give another fraction, or more photographs"
        )
    return {split: prep.num_photos - num_val, VAL: num_val}


def write_splits(plans: tuple[SplitPlan, ...], num_workers: int, part: Part | None = None) -> int:
    """Make what is missing of `plans`, then publish rejects and manifest.

    Of a `part`, only its share of the shards is made, and nothing published: `merge_splits` does
    that when all are there. Returns how many photographs were worked on: 0 if all was there. Raises
    UserError where the folder holds shards made with other parameters, or every photograph was
    rejected.
    """
    root = plans[0].root
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with own(root, part):
            manifest = manifest_so_far(root)
            for plan in plans:
                _check_prep(plan, manifest)
            tasks = [task for plan in plans for task in plan.tasks]
            mine = part.share_of(tasks) if part else tasks
            _clean(root, mine, is_whole=part is None)
            unfinished = [p for p in plans if not is_published(root, p.split, manifest)]
            todo = _not_done(mine, {plan.split for plan in unfinished})
            num_todo = sum(len(task.members) for task in todo)
            num_photos = sum(len(task.members) for task in mine)
            with progress("photographs", num_photos, done=num_photos - num_todo) as bar:
                work_in_parallel(make_shard, todo, num_workers, bar.update)
            if unfinished and part is None:
                made = [assemble(p.split, [_sidecar_of(t) for t in p.tasks]) for p in unfinished]
                publish_splits(root, made, manifest)
            return num_todo


def _plan_split(
    root: Path, split: str, source: Source, members: list[tuple[int, Photo]], prep: Prep
) -> SplitPlan:
    order = permutation(len(members), prep.seed, split)
    shuffled = [members[index] for index in order]
    size = prep.samples_per_shard
    slices = [tuple(shuffled[start : start + size]) for start in range(0, len(shuffled), size)]
    tasks = (ShardTask(root, split, index, source, prep, part) for index, part in enumerate(slices))
    return SplitPlan(root, split, prep, tuple(tasks))


def _check_prep(plan: SplitPlan, manifest: Manifest) -> None:
    """Raise UserError if `plan.split` was made, or begun, with other parameters."""
    wanted = asdict(plan.prep)
    earlier = _prep_so_far(plan, manifest)
    if earlier is None or earlier == wanted:
        return
    if earlier["writer"] == EARLIER_WRITER:
        if not is_published(plan.root, plan.split, manifest):
            raise UserError(tell_earlier_writer(plan.root, plan.split))
        # Both differ by their spelling alone. What is finished is not made again for that.
        same = {name: earlier[name] for name in ("writer", "annotations") if wanted[name]}
        if earlier == wanted | same:
            return
    raise UserError(
        f"{plan.root} holds a split '{plan.split}' made with other parameters or photographs: "
        f"{differences(earlier, wanted)}. Give the same ones to go on, or another --out or --split"
    )


def _prep_so_far(plan: SplitPlan, manifest: Manifest) -> dict[str, object] | None:
    if plan.split in manifest.splits:
        return {"writer": EARLIER_WRITER} | manifest.splits[plan.split].prep
    for path in sorted(plan.root.glob(f"{plan.split}-*.json")):
        sidecar = read_sidecar(path)
        if sidecar is not None:
            return asdict(sidecar.prep)
    return None


def _clean(root: Path, tasks: Iterable[ShardTask], is_whole: bool) -> None:
    """Remove what a killed run of the same tasks was in the middle of writing, no other's."""
    names = {path.name for task in tasks for path in (task.tar, task.index_file, task.sidecar)}
    names |= {MANIFEST, REJECTED} if is_whole else set()
    for file, name in leftovers(root):
        if name in names:
            file.unlink()


def _not_done(tasks: Iterable[ShardTask], splits: set[str]) -> list[ShardTask]:
    return [t for t in tasks if t.split in splits and not finished_sidecar(t.tar, t.prep)]


def _sidecar_of(task: ShardTask) -> Sidecar:
    sidecar = read_sidecar(task.sidecar)
    if sidecar is None:
        raise UserError(f"{task.sidecar} is gone while shards were made; run the command again")
    return sidecar
