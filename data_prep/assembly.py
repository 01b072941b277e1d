"""Sidecars of finished shards → rejected.jsonl and manifest.json, whoever made the shards."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.shard_file import Reject, Sidecar
from pix2pix.data.index import index_path, index_shard, write_index
from pix2pix.data.shards import (
    MANIFEST,
    Manifest,
    Split,
    check_shard,
    read_manifest,
    write_manifest,
)
from pix2pix.errors import UserError
from pix2pix.system.durable import publish

REJECTED = "rejected.jsonl"


def manifest_so_far(root: Path) -> Manifest:
    """Return the manifest of `root`, without a split where nothing was published yet."""
    return read_manifest(root) if (root / MANIFEST).exists() else Manifest({})


def is_published(root: Path, split: str, manifest: Manifest) -> bool:
    """Return True if the manifest names the split, and its shards are all there."""
    if split not in manifest.splits:
        return False
    try:
        for shard in manifest.splits[split].shards:
            check_shard(root, split, shard)
    except UserError:
        return False
    return True


@dataclass(frozen=True)
class Made:
    """A split whose shards are there, and what was left out of it."""

    split: Split
    rejects: tuple[Reject, ...]


def assemble(split: str, sidecars: Sequence[Sidecar]) -> Made:
    """Return the split that the sidecars of all its shards, in order, tell."""
    shards = tuple(sidecar.shard for sidecar in sidecars if sidecar.shard.num_samples)
    reasons = sum((sidecar.reasons for sidecar in sidecars), Counter[str]())
    prep = asdict(sidecars[0].prep)
    rejects = tuple(reject for sidecar in sidecars for reject in sidecar.rejects)
    return Made(Split(split, shards, prep, dict(sorted(reasons.items()))), rejects)


def publish_splits(root: Path, made: Sequence[Made], manifest: Manifest) -> None:
    """Write rejected.jsonl if any is, then the manifest: `manifest`, that of `root`, and `made`.

    Raises UserError where every photograph of a split was rejected.
    """
    splits = {one.split.name: one.split for one in made}
    lines = [line for line in _rejected_so_far(root) if json.loads(line)["split"] not in splits]
    for one in made:
        rejects = sorted(one.rejects, key=lambda reject: os.fsencode(reject.source))
        lines += [_reject_line(one.split.name, reject) for reject in rejects]
    lines.sort(key=lambda line: json.loads(line)["split"])  # stable: within a split by source
    if lines:
        publish(root / REJECTED, "".join(lines).encode())
    else:
        (root / REJECTED).unlink(missing_ok=True)
    for split in splits.values():
        if not split.num_samples:
            raise UserError(
                f"no photograph is left for the split '{split.name}': "
                f"{summarize(split.rejected)} rejected; see {root / REJECTED}"
            )
        if split.kind == "pairs":
            _write_missing_indexes(root, split)
    write_manifest(root, Manifest(manifest.splits | splits))


def summarize(rejected: Mapping[str, int]) -> str:
    """Return counts per reason in a line: "12 near_gray, 3 too_small"."""
    ordered = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered) or "none"


def _write_missing_indexes(root: Path, split: Split) -> None:
    """Index the shards of `split` whose index got lost, on the way from another machine perhaps."""
    for shard in split.shards:
        path = index_path(root, shard.name)
        if not path.exists():
            write_index(path, index_shard(root / shard.name, shard.sha256))


def _rejected_so_far(root: Path) -> list[str]:
    path = root / REJECTED
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def _reject_line(split: str, reject: Reject) -> str:
    return json.dumps({"source": reject.source, "split": split, "reason": reject.reason}) + "\n"
