"""Turn a folder, a zip or a tar of photographs into shards to train on.

    python -m data_prep.make_shards --photos DIR|ZIP|TAR --out DIR --split train

Stop it as you like: the same command goes on where it was, to the same bytes, with any number of
workers. Another --split goes into the same folder. What is left out is in rejected.jsonl.
Several machines share the work with --part 1/2 on one, --part 2/2 on the other, then merge_shards.
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data_prep.archives import open_source
from data_prep.assembly import REJECTED, summarize
from data_prep.coco import annotate, digest_metadata, read_annotations
from data_prep.duplicates import reject_duplicates
from data_prep.ownership import Part
from data_prep.photos import OTHER_KIND, Photo, Source, digest_photos, without_others
from data_prep.shard_file import Prep, read_sidecar, require_webdataset
from data_prep.writer import plan_splits, write_splits
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.data.shards import Split, read_manifest
from pix2pix.errors import UserError
from pix2pix.photos.kinds import tell_others
from pix2pix.system.machine import num_cores

# Below this a picture would be mostly interpolated at the size that training wants.
_SMALLEST_PHOTO = 256  # pixels, short side
_MANY_REJECTED = 0.1  # of a split; COCO rejects 0.04
_ADVICE = {
    "too_small": "a smaller --short_side or --min_short_side keeps small ones",
    "near_gray": "a smaller --min_chroma keeps pale ones",
    "license": "a longer list of --licenses keeps more",
    "license_unknown": "--annotations does not know their licenses",
    "duplicate": "they are copies of others, byte for byte",
    "no_picture": "--image names the member that is the picture",
}


@dataclass(frozen=True)
class MakeShardsOptions:
    """Flags of `python -m data_prep.make_shards`."""

    photos: Path = option(
        help="folder of photographs, read with the folders in it, or a zip or a plain tar, which "
        "is not unpacked",
        metavar="DIR|ZIP|TAR",
    )
    out: Path = option(help="folder for shards and manifest", metavar="DIR")
    split: str = option(help="name of the split to make, such as train or val", metavar="NAME")
    short_side: int = option(286, help="short side of the pictures", unit="pixels")
    samples_per_shard: int = option(1000, help="most pairs that a shard holds", unit="pairs")
    num_workers: int = option(0, help="processes; 0 is one per core", unit="processes")
    seed: int = option(0, help="of the order in which photographs are put into shards")
    part: str | None = option(
        None, help="make this share of the shards, then merge_shards all shares", metavar="I/N"
    )
    val_fraction: float = option(0.0, help="share to cut off as split val", unit="0..1")
    min_chroma: float = option(
        4.0, help="least mean of max - min of R, G, B, to tell color from gray", unit="0..255"
    )
    min_short_side: int | None = option(
        None,
        help="least short side of a photograph; none is 256, or short_side if less",
        unit="pixels",
    )
    annotations: Path | None = option(
        None,
        help="COCO's JSON (captions, instances or image_info), for ids and licenses",
        metavar="FILE",
    )
    licenses: tuple[str, ...] | None = option(
        None,
        help="keep only photographs under these, by id or name as in --annotations",
        metavar="LIST",
    )

    def __post_init__(self) -> None:
        least = {
            "short_side": 16,
            "samples_per_shard": 1,
            "num_workers": 0,
            "min_short_side": 1,
            "min_chroma": 0,
            "val_fraction": 0,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"--{name} {value}: give {smallest} or more")
        if self.val_fraction >= 1:
            raise UserError(f"--val_fraction {self.val_fraction:g}: give a share below 1, as 0.05")
        if self.licenses and not self.annotations:
            raise UserError("--licenses needs --annotations FILE, which says what license each has")
        if self.part is not None:
            Part.parse(self.part)


def make_shards(options: MakeShardsOptions) -> int:
    """Turn photographs into shards of (gray, color) pairs to train on.

    Stop it as you like: the same command goes on where it was, and ends with the same bytes for
    any number of workers. Another --split goes into the same folder.

    What cannot be used is left out, and named with the reason in rejected.jsonl; so are copies of
    another photograph, byte for byte.
    """
    started = time.monotonic()
    require_webdataset()
    num_workers = options.num_workers or num_cores()
    part = Part.parse(options.part) if options.part else None
    source = open_source(options.photos)
    photos, others, prep = _list(source, options)
    photos = reject_duplicates(source, photos, options.out, num_workers)
    plans = plan_splits(options.out, options.split, source, photos, prep, others)
    for line in tell_others(others):
        print(line)
    num_done = write_splits(plans, num_workers, part)
    if part is None:
        splits = read_manifest(options.out).splits
        for plan in plans:
            report(options.out, splits[plan.split])
    if num_done:
        seconds = time.monotonic() - started
        rate = num_done / seconds
        print(f"{num_done:,} photographs in {seconds:.0f} s, {rate:.0f} per second: {options.out}")
    else:
        print(f"nothing to do: {f'part {part} of ' if part else ''}{options.out} is finished")
    if part is not None:
        print(
            f"part {part} is done. When all {part.count} are, and their files lie in one folder:\n"
            f"    python -m data_prep.merge_shards --shards {options.out}"
        )
    return 0


def _list(source: Source, options: MakeShardsOptions) -> tuple[list[Photo], tuple[str, ...], Prep]:
    """Photographs with what is known of them, files of other kinds, and what decides the bytes."""
    files = source.list_files()
    others = tuple(file.name for file in files if file.reject == OTHER_KIND)
    photos = without_others(files)
    metadata = licenses = None
    if options.annotations:
        annotations = read_annotations(options.annotations)
        chosen = annotations.choose(options.licenses) if options.licenses else None
        photos = annotate(photos, annotations, chosen)
        metadata = digest_metadata(photos)
        unknown = sum(not photo.metadata for photo in photos)
        if unknown and not chosen:
            print(
                f"{unknown:,} of {len(photos):,} photographs are not in {options.annotations}: "
                "their license stays unknown",
                file=sys.stderr,
            )
        licenses = ",".join(sorted(chosen)) if chosen else None
    prep = Prep(
        photos=digest_photos(photos),
        num_photos=len(photos),
        seed=options.seed,
        val_fraction=options.val_fraction,
        samples_per_shard=options.samples_per_shard,
        short_side=options.short_side,
        min_short_side=options.min_short_side or min(_SMALLEST_PHOTO, options.short_side),
        min_chroma=options.min_chroma,
        annotations=metadata,
        licenses=licenses,
    )
    return photos, others, prep


def report(out: Path, split: Split) -> None:
    """Print what `split` holds, and a warning if much of it is left out."""
    num_photos = (
        split.num_samples + sum(split.rejected.values()) - split.rejected.get(OTHER_KIND, 0)
    )
    print(_describe(split, num_photos))
    for note, count in sorted(_notes(out, split).items()):
        print(f"    {count:,}: {note}")
    _warn_of_rejects(out, split, num_photos)


def _notes(out: Path, split: Split) -> Counter[str]:
    """Count photographs that were kept, but not as they were meant, by the sidecars."""
    sidecars = (read_sidecar(out / Path(shard.name).with_suffix(".json")) for shard in split.shards)
    return sum((Counter(sidecar.notes) for sidecar in sidecars if sidecar), Counter[str]())


def _describe(split: Split, num_photos: int) -> str:
    num_bytes = sum(shard.bytes for shard in split.shards)
    plural = "" if len(split.shards) == 1 else "s"
    photographs = "photographs" if split.kind == "pairs" else "samples"
    return (
        f"{split.name}: {split.num_samples:,} {split.kind} of {num_photos:,} {photographs} "
        f"in {len(split.shards):,} shard{plural}, {num_bytes / 1e6:,.1f} MB; "
        f"rejected: {summarize(split.rejected)}"
    )


def _warn_of_rejects(out: Path, split: Split, num_photos: int) -> None:
    share = 1 - split.num_samples / num_photos
    if share > _MANY_REJECTED:
        reasons = {reason: n for reason, n in split.rejected.items() if reason != OTHER_KIND}
        commonest = max(reasons, key=lambda reason: reasons[reason])
        advice = _ADVICE.get(commonest, "look at these files")
        print(
            f"warning: {share:.0%} of the photographs for {split.name} are left out, "
            f"most as {commonest}: {advice}; {out / REJECTED} lists them",
            file=sys.stderr,
        )


def command() -> None:
    """Run `pix2pix-make-shards`, and this file."""
    main(make_shards, MakeShardsOptions)


if __name__ == "__main__":
    command()
