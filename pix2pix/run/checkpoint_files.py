"""Checkpoint files on disk: checksums, verification, retention.

step_000001000/{__0_0.distcp, …, .metadata, state.json}
"""

import json
import re
import shutil
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pix2pix.errors import UserError
from pix2pix.system.durable import flush, publish_json

STATE_FILE = "state.json"
METADATA_FILE = ".metadata"
CHUNK_BYTES = 2**20  # stays in the processor's cache between read and checksum

Sums = dict[str, dict[str, Any]]  # name → {"bytes": 123, "crc32": "00c0ffee"}


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint after `step` steps."""
    return f"step_{step:09d}"


def checkpoints(root: Path) -> list[Path]:
    """Return all paths under `root` with the name of a checkpoint, newest first."""
    named = (path for path in root.glob("step_*") if re.fullmatch(r"step_\d{9,}", path.name))
    return sorted(named, key=lambda path: int(path.name.removeprefix("step_")), reverse=True)


def summed(paths: Collection[Path]) -> Sums:
    """Return size and CRC-32 of each file, by name.

    CRC-32 finds every flipped bit and every burst of 32, and misses other damage once in 4 billion.
    Measured on one core: 6.5 GB/s; SHA-256 1.9 with processor support, BLAKE2b 1.3. The checksums
    protect against accidents, not against attackers.
    """
    return {path.name: _sum_of(path) for path in paths}


def publish(partial: Path, final: Path, facts: Mapping[str, Any], sums: Sums) -> None:
    """Write `state.json` and rename the finished `partial` to `final`; its files are durable."""
    content = {**facts, "files": dict(sorted(sums.items()))}
    publish_json(partial / STATE_FILE, content | {"crc32": _crc32(content)})
    if final.exists():  # a damaged one: the training would have resumed from a good one
        remove(final)
    partial.rename(final)
    flush(final.parent)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's state.json.

    Raises:
        ValueError: the file is damaged.
        OSError: the file is missing or unreadable.
    """
    facts = json.loads((path / STATE_FILE).read_bytes())
    if facts.pop("crc32") != _crc32(facts):
        raise ValueError(f"{path / STATE_FILE} is not as it was written")
    return facts


def find_fault(path: Path, config_hash: str) -> str | None:
    """Return why the checkpoint is unusable, or None if it is intact by file names and sizes."""
    if not (path / METADATA_FILE).exists():
        return f"{METADATA_FILE} is missing"
    try:
        facts = read_facts(path)
        lengths = {name: int(wanted["bytes"]) for name, wanted in facts["files"].items()}
    except FileNotFoundError:
        return f"{STATE_FILE} is missing"
    except OSError as error:
        return f"{STATE_FILE} can't be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{STATE_FILE} is damaged"
    if facts.get("config_hash", config_hash) != config_hash:
        return "it belongs to another training"
    for name, wanted in lengths.items():
        try:
            length = (path / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if length != wanted:
            count = abs(length - wanted)
            unit = "byte" if count == 1 else "bytes"
            return f"{name} is {count:,} {unit} {'short' if length < wanted else 'too long'}"
    return None


def verify(path: Path, config_hash: str, part: int = 0, parts: int = 1) -> str | None:
    """Return what `find_fault` returns, and compare the checksums of a part of the files.

    That part is every `parts`-th file from `part` on.
    """
    fault = find_fault(path, config_hash)
    if fault is not None:
        return fault
    for name, wanted in list(read_facts(path)["files"].items())[part::parts]:
        try:
            if _sum_of(path / name) != wanted:
                return f"the checksum of {name} differs"
        except OSError as error:
            return f"{name} can't be read: {error.strerror}"
    return None


def none_is_good(root: Path) -> UserError:
    """Return the error for a run without a good checkpoint: a restart is the user's decision."""
    return UserError(
        f"no checkpoint in {root} is complete; restore one from a copy, or remove the folder to "
        "start again from step 0"
    )


def prune(newest: Path, keep: int, config_hash: str, unusable: Collection[Path]) -> None:
    """Remove the checkpoints of this training that are older than its last `keep` usable ones.

    A damaged checkpoint is neither counted nor removed: counted, it would displace a good one.
    Neither is one of another training.

    Args:
        newest: the one just saved, which always stays.
        keep: number of usable checkpoints to keep, `newest` included.
        config_hash: identity of this training.
        unusable: checkpoints known to be damaged.
    """
    others = (path for path in checkpoints(newest.parent) if path not in (newest, *unusable))
    usable = [path for path in others if find_fault(path, config_hash) is None]
    for old in usable[keep - 1 :]:
        remove(old)


def remove(path: Path) -> None:
    """Delete a checkpoint. If interrupted, nothing is left under the name of a checkpoint."""
    doomed = path.with_name(f".{path.name}.removed")
    path.rename(doomed)
    shutil.rmtree(doomed)


def clean_up(root: Path) -> list[str]:
    """Create `root`, and remove what a killed training left half written.

    Returns:
        One line for each checkpoint that was removed.

    Raises:
        OSError: `root` cannot be created or written.
    """
    root.mkdir(parents=True, exist_ok=True)
    for doomed in root.glob(".step_*.removed"):
        shutil.rmtree(doomed)
    cut_short = sorted(root.glob(".step_*.partial"))
    for partial in cut_short:
        shutil.rmtree(partial)
    return [f"removing {partial.name}: its save was cut short" for partial in cut_short]


def _sum_of(path: Path) -> dict[str, Any]:
    length = crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            length += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return {"bytes": length, "crc32": f"{crc:08x}"}


def _crc32(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
