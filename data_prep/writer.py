"""Photographs → tar shards and manifest: what goes into which shard, and what is left to do.

Shard i is slice i of a seeded permutation of the sources, so every shard is a task of its own:
any number of processes makes the same bytes, and a run that was killed goes on where it was.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from data_prep.photos import Photo, Source
from data_prep.progress import Progress
from data_prep.shard_file import (
    Prep,
    Reject,
    ShardTask,
    Sidecar,
    disk_errors,
    is_done,
    read_sidecar,
)
from data_prep.workers import make_shards_in_parallel, own
from pix2pix.durable import publish
from pix2pix.errors import UserError
from pix2pix.order import permutation
from pix2pix.shards import (
    MANIFEST,
    Manifest,
    Split,
    check_shard,
    read_manifest,
    write_manifest,
)

REJECTED = "rejected.jsonl"
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
        """Photographs of this split, before any is rejected."""
        return sum(len(task.members) for task in self.tasks)


def plan_splits(
    root: Path, split: str, source: Source, photos: list[Photo], prep: Prep
) -> tuple[SplitPlan, ...]:
    """One plan, for all of `photos`; with a `val_fraction`, a second one for the split "val".

    photos: sorted by the bytes of their names, as sources list them.
    """
    if not _SPLIT_NAME.fullmatch(split):
        raise UserError(f"--split '{split}': a name of small letters, digits and _ is needed")
    members = list(enumerate(photos))
    chosen = {split: members}
    if prep.val_fraction:
        num_val = round(prep.val_fraction * len(photos))
        if split == VAL:
            raise UserError("--val_fraction cuts off the split 'val'; give --split another name")
        if not 0 < num_val < len(photos):
            raise UserError(
                f"--val_fraction {prep.val_fraction:g} of {len(photos)} photographs leaves one "
                "split empty; give another fraction, or more photographs"
            )
        kept_out = set(permutation(len(photos), prep.seed, VAL)[:num_val].tolist())
        chosen = {
            split: [member for member in members if member[0] not in kept_out],
            VAL: [member for member in members if member[0] in kept_out],
        }
    return tuple(_plan_split(root, name, source, chosen[name], prep) for name in chosen)


def write_splits(plans: tuple[SplitPlan, ...], num_workers: int, progress: Progress) -> int:
    """Make what is missing of `plans`, then publish rejects and manifest.

    Returns how many photographs were worked on: 0 if all was there. Raises UserError where the
    folder holds shards made with other parameters, or every photograph was rejected.
    """
    root = plans[0].root
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with own(root):
            manifest = _manifest_so_far(root)
            for plan in plans:
                _check_prep(plan, manifest)
                _clean(plan)
            unfinished = [plan for plan in plans if not _is_finished(plan, manifest)]
            tasks = [task for plan in unfinished for task in plan.tasks]
            todo = [task for task in tasks if not is_done(task)]
            num_todo = sum(len(task.members) for task in todo)
            num_photos = sum(plan.num_photos for plan in plans)
            progress.begin(num_photos - num_todo, num_photos)
            make_shards_in_parallel(todo, num_workers, progress.advance)
            if unfinished:
                _publish(root, unfinished, manifest)
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


def _manifest_so_far(root: Path) -> Manifest:
    return read_manifest(root) if (root / MANIFEST).exists() else Manifest({})


def _check_prep(plan: SplitPlan, manifest: Manifest) -> None:
    """Raise UserError if `plan.split` was made, or begun, with other parameters."""
    wanted = asdict(plan.prep)
    earlier = _prep_so_far(plan, manifest)
    if earlier is None or earlier == wanted:
        return
    names = [field.name for field in fields(Prep)] + [key for key in earlier if key not in wanted]
    changes = (
        f"{name} {earlier.get(name)} there, {wanted.get(name)} now"
        for name in names
        if earlier.get(name) != wanted.get(name)
    )
    raise UserError(
        f"{plan.root} holds a split '{plan.split}' made with other parameters or photographs: "
        f"{'; '.join(changes)}. Give the same ones to go on, or another --out or --split"
    )


def _prep_so_far(plan: SplitPlan, manifest: Manifest) -> dict[str, object] | None:
    if plan.split in manifest.splits:
        return manifest.splits[plan.split].prep
    for path in sorted(plan.root.glob(f"{plan.split}-*.json")):
        sidecar = read_sidecar(path)
        if sidecar is not None:
            return asdict(sidecar.prep)
    return None


def _is_finished(plan: SplitPlan, manifest: Manifest) -> bool:
    """Whether the manifest names the split, and its shards are all there."""
    if plan.split not in manifest.splits:
        return False
    try:
        for shard in manifest.splits[plan.split].shards:
            check_shard(plan.root, plan.split, shard)
    except UserError:
        return False
    return True


def _clean(plan: SplitPlan) -> None:
    """Remove what a killed run was in the middle of writing."""
    for pattern in (f".{plan.split}-*.tmp", f".{MANIFEST}.*.tmp", f".{REJECTED}.*.tmp"):
        for leftover in plan.root.glob(pattern):
            leftover.unlink()


def _publish(root: Path, plans: Sequence[SplitPlan], manifest: Manifest) -> None:
    """Write rejected.jsonl, then the manifest, both assembled from the sidecars."""
    splits = dict(manifest.splits)
    lines = [
        line
        for line in _rejected_so_far(root)
        if json.loads(line)["split"] not in {plan.split for plan in plans}
    ]
    for plan in plans:
        sidecars = [_sidecar_of(task) for task in plan.tasks]
        splits[plan.split] = _assemble(plan, sidecars)
        rejects = [reject for sidecar in sidecars for reject in sidecar.rejects]
        rejects.sort(key=lambda reject: os.fsencode(reject.source))
        lines += [_reject_line(plan.split, reject) for reject in rejects]
    lines.sort(key=lambda line: json.loads(line)["split"])  # stable: within a split by source
    publish(root / REJECTED, "".join(lines).encode())
    for plan in plans:
        if not splits[plan.split].num_samples:
            raise UserError(
                f"no photograph is left for the split '{plan.split}': "
                f"{summarize(splits[plan.split].rejected)} rejected; see {root / REJECTED}"
            )
    write_manifest(root, Manifest(splits))


def _assemble(plan: SplitPlan, sidecars: list[Sidecar]) -> Split:
    shards = tuple(sidecar.shard for sidecar in sidecars if sidecar.shard.num_samples)
    reasons = sum((sidecar.reasons for sidecar in sidecars), Counter[str]())
    return Split(plan.split, shards, asdict(plan.prep), dict(sorted(reasons.items())))


def _sidecar_of(task: ShardTask) -> Sidecar:
    sidecar = read_sidecar(task.sidecar)
    if sidecar is None:
        raise UserError(f"{task.sidecar} is gone while shards were made; run the command again")
    return sidecar


def _rejected_so_far(root: Path) -> list[str]:
    path = root / REJECTED
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def _reject_line(split: str, reject: Reject) -> str:
    return json.dumps({"source": reject.source, "split": split, "reason": reject.reason}) + "\n"


def summarize(rejected: dict[str, int]) -> str:
    """Counts per reason in a line: "12 near_gray, 3 too_small"."""
    ordered = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered) or "none"
