"""Make one manifest of shards that several machines have made.

    python -m data_prep.merge_shards --shards DIR

Every part of `make_shards --part I/N` has to be done, and its files have to lie in DIR: copy them
there from machines that do not share a folder. Manifest and rejects are then byte for byte those of
one machine. Only sidecars are read, no photographs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

from data_prep.assembly import (
    REJECTED,
    assemble,
    is_published,
    manifest_so_far,
    publish_splits,
)
from data_prep.make_shards import report
from data_prep.ownership import num_parts, own
from data_prep.shard_file import (
    EARLIER_WRITER,
    Prep,
    Sidecar,
    differences,
    disk_errors,
    finished_sidecar,
    read_sidecar,
    shard_name,
    tell_earlier_writer,
)
from data_prep.writer import VAL, split_sizes
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.data.shards import MANIFEST, Manifest, read_manifest
from pix2pix.errors import UserError
from pix2pix.system.durable import leftovers

_MOST_NAMED = 6  # shards, and parts, in an error


@dataclass(frozen=True)
class MergeShardsOptions:
    """Flags of `python -m data_prep.merge_shards`."""

    shards: Path = option(help="folder with the shards of all parts", metavar="DIR")


def merge_shards(options: MergeShardsOptions) -> int:
    """Make one manifest of shards that several machines have made.

    Every part of `make_shards --part I/N` has to be done, and its files have to lie in the folder.
    """
    root = options.shards
    merged = merge_splits(root)
    manifest = read_manifest(root)
    for split in merged:
        report(root, manifest.splits[split])
    if not merged:
        print(f"nothing to do: {root} has its manifest")
    return 0


def merge_splits(root: Path) -> tuple[str, ...]:
    """Publish what parts of make_shards made in `root`; returns the names of the splits.

    Raises UserError where shards are missing, cut short or made with different parameters.
    """
    if not root.is_dir():
        raise UserError(f"--shards {root}: there is no such folder")
    if not any(root.glob("*.json")):  # neither sidecar nor manifest
        raise UserError(f"{root} has no shards yet; make them with make_shards --part I/N")
    with disk_errors(root), own(root):
        manifest = manifest_so_far(root)
        begun = _begun_splits(root, manifest)
        for file, name in leftovers(root):
            if name in (MANIFEST, REJECTED):
                file.unlink()
        made: dict[str, list[Sidecar]] = {}
        for split, prep in begun.items():
            sizes = split_sizes(split, prep)
            if not all(is_published(root, name, manifest) for name in sizes):
                made |= _collect(root, prep, sizes)
        if made:
            publish_splits(root, [assemble(*split) for split in made.items()], manifest)
        return tuple(made)


def _begun_splits(root: Path, manifest: Manifest) -> dict[str, Prep]:
    """Return what each begun split is made with, but for a val that is cut off another."""
    first: dict[str, Sidecar] = {}
    for path in sorted(root.glob("*.json")):
        sidecar = read_sidecar(path)
        if sidecar is None:
            continue
        split = sidecar.shard.name.rpartition("-")[0]
        if sidecar.prep.writer == EARLIER_WRITER and split not in manifest.splits:
            raise UserError(tell_earlier_writer(root, split))
        earlier = first.setdefault(split, sidecar)
        if earlier.prep != sidecar.prep:
            changes = differences(asdict(earlier.prep), asdict(sidecar.prep), "{} {} and {}")
            raise UserError(
                f"{earlier.shard.name} and {sidecar.shard.name} in {root} were made with different "
                f"parameters or photographs: {changes}. Delete the wrong ones, each with its "
                ".json, and make their part again"
            )
    begun = {split: sidecar.prep for split, sidecar in first.items()}
    if VAL in begun and begun[VAL].val_fraction:
        cut_off = begun.pop(VAL)
        if cut_off not in begun.values():
            raise UserError(
                f"{root} has a val that was cut off from another split, but no shard of that yet; "
                "run make_shards with the parts that are not done"
            )
    return begun


def _collect(root: Path, prep: Prep, sizes: Mapping[str, int]) -> dict[str, list[Sidecar]]:
    """Return the sidecars of all shards of the splits that `split_sizes` told."""
    shards = [
        (split, shard_name(split, index))
        for split, size in sizes.items()
        for index in range(ceil(size / prep.samples_per_shard))
    ]
    sidecars = [finished_sidecar(root / name, prep) for _, name in shards]
    missing = [position for position, sidecar in enumerate(sidecars) if sidecar is None]
    if missing:
        raise UserError(_tell_missing(root, [name for _, name in shards], missing))
    made: dict[str, list[Sidecar]] = {split: [] for split in sizes}
    for (split, _), sidecar in zip(shards, sidecars, strict=True):
        made[split] += [sidecar] if sidecar else []
    return made


def _tell_missing(root: Path, shards: Sequence[str], missing: Sequence[int]) -> str:
    told = f"{root} lacks {len(missing):,} of {len(shards):,} shards, or their sidecars: "
    told += _name_some([shards[position] for position in missing])
    if count := num_parts(root):
        parts = sorted({position % count + 1 for position in missing})
        told += f" (--part {_name_some([f'{number}/{count}' for number in parts])})"
    return f"{told}. Run make_shards with the parts that are not done, or copy their files here"


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


def command() -> None:
    """Run `pix2pix-merge-shards`, and this file."""
    main(merge_shards, MergeShardsOptions)


if __name__ == "__main__":
    command()
