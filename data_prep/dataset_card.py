"""The README.md of a data set: what is in it, under which licenses, and how to load it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from data_prep.licenses import license_terms
from pix2pix.data.index import index_path, index_shard, read_index
from pix2pix.data.shards import Manifest, Shard, Split, place_of
from pix2pix.errors import UserError

CARD = "README.md"

_UNKNOWN = "not known"
_MOST_LICENSES = 20  # rows; the others are counted

_CARD = """\
---
{metadata}
---
# Photographs for colorization

{what} They are [WebDataset](https://github.com/webdataset/webdataset) shards, made with pix2pix.
`manifest.json` names each shard with its size and SHA-256; `NAME.index.npz` says where each sample
lies in it.

| split | samples | shards | size | left out |
|---|---|---|---|---|
{splits}

## A sample

{members}

## Licenses of the photographs

The photographs are other people's; their licenses are theirs to give.

| license | photographs |
|---|---|
{licenses}

## How to load it

```python
{opener}urls = {urls}
for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("pil"):
    print(sample["__key__"], sample[{picture!r}].size)
```

To train on it: `accelerate launch scripts/train.py --shards {place} --run_dir runs/NAME`
"""
_OPENER = "import webdataset\n\n"
_OPENER_OF_AZURE = """\
import fsspec
import webdataset

webdataset.gopen_schemes["az"] = lambda url, mode, bufsize, **_: fsspec.open(url, mode).open()
"""  # webdataset has none of its own; that of gs is the program gsutil
_PAIRS = """\
`KEY.color.jpg` (RGB, 4:4:4) and `KEY.gray.jpg` (its Rec. 601 luma), both with a short side of
{side} pixels; `KEY.json` with the photograph's source, id, size and, where it is known, license."""
_PICTURES = "One picture, as its author encoded it, and what else the shards' author put beside it."


def dataset_card(manifest: Manifest, target: str, licenses: Mapping[str, int] | None) -> str:
    """Return the card of the shards of `manifest` as they will lie at `target`.

    licenses: photographs by license; None: nobody counted.
    """
    splits = manifest.splits
    first = next(iter(splits.values()))
    pairs = first.kind == "pairs"
    what = "Pairs of a gray and a color photograph." if pairs else "Photographs in color."
    picture = "color.jpg" if pairs else str(first.prep["image"][0])
    return _CARD.format(
        metadata=_metadata(splits),
        what=what,
        splits="\n".join(_row(split) for split in splits.values()),
        members=_PAIRS.format(side=first.short_side) if pairs else _PICTURES,
        licenses=_license_rows(licenses),
        opener=_OPENER_OF_AZURE if target.startswith("az://") else _OPENER,
        urls=_urls(target, first),
        picture=picture,
        place=target,
    )


def count_licenses(root: Path, splits: Iterable[Split]) -> dict[str, int]:
    """Return how many photographs are under each license, from the JSON of the samples in `root`.

    Raises UserError where a shard cannot be read.
    """
    counts = Counter[str]()
    for split in splits:
        for shard in split.shards:
            for metadata in _metadata_of(root, shard):
                counts[next(iter(license_terms(metadata)), _UNKNOWN)] += 1
    return dict(counts)


def _metadata_of(root: Path, shard: Shard) -> Iterable[bytes]:
    path = Path(place_of(root, shard))
    try:
        found = index_path(root, shard.name)
        index = read_index(found) if found.exists() else index_shard(path, shard.sha256)
        with path.open("rb") as file:
            for offset, size in index.places["metadata"].tolist():
                file.seek(offset)
                yield file.read(size)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _metadata(splits: Mapping[str, Split]) -> str:
    from huggingface_hub import DatasetCardData

    files = [
        {"split": name, "path": [shard.name for shard in split.shards]}
        for name, split in splits.items()
    ]
    return DatasetCardData(
        task_categories=["image-to-image"],
        tags=["webdataset", "colorization"],
        configs=[{"config_name": "default", "data_files": files}],
    ).to_yaml()


def _row(split: Split) -> str:
    size = sum(shard.bytes for shard in split.shards) / 1e9
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in split.rejected.items())
    return (
        f"| {split.name} | {split.num_samples:,} | {len(split.shards):,} | {size:.2f} GB "
        f"| {rejected or 'none'} |"
    )


def _license_rows(licenses: Mapping[str, int] | None) -> str:
    if licenses is None:
        return "| not counted | all |"
    ordered = sorted(licenses.items(), key=lambda item: (-item[1], item[0]))
    rows = [f"| {name} | {count:,} |" for name, count in ordered[:_MOST_LICENSES]]
    others = sum(count for _, count in ordered[_MOST_LICENSES:])
    return "\n".join(rows + ([f"| others | {others:,} |"] if others else []))


def _urls(target: str, split: Split) -> str:
    """Return a Python expression: the split's shards as webdataset opens them at `target`."""
    before, after = f"{target.rstrip('/')}/", ""
    if target.startswith("hf://datasets/"):
        owner, name, *folder = target.removeprefix("hf://datasets/").rstrip("/").split("/")
        below = "".join(f"{quote(part)}/" for part in folder)
        before = f"https://huggingface.co/datasets/{owner}/{name}/resolve/main/{below}"
    elif target.startswith("s3://"):
        before, after = f"pipe:aws s3 cp {before}", " -"
    names = [shard.name for shard in split.shards]
    first, last = names[0].removesuffix(".tar"), names[-1].removesuffix(".tar")
    stem, _, number = first.rpartition("-")
    if number.isdecimal() and last.rpartition("-")[2].isdecimal():
        begin, end = int(number), int(last.rpartition("-")[2])
        width = len(number)
        numbered = [f"{stem}-{count:0{width}d}.tar" for count in range(begin, end + 1)]
        if names == numbered and len(names) > 1:
            end_text = last.rpartition("-")[2]
            return repr(f"{before}{stem}-{{{number}..{end_text}}}.tar{after}")
    return "[\n" + "".join(f"    {before + name + after!r},\n" for name in names) + "]"
