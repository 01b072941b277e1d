"""The code as it was at submission: copied into the run directory, and what the job runs.

Whoever installed a wheel has no git tree, so the packages are copied from where they are imported.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pix2pix
from pix2pix.errors import UserError
from pix2pix.system.durable import aside

PACKAGES = ("pix2pix", "data_prep", "slurm")


def snapshot_path(folder: Path) -> Path:
    """Return where a snapshot of this code is or would be in `folder`, named by its content."""
    digest = sha256()
    for name, path in _sources():
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return folder / digest.hexdigest()[:12]


def take_snapshot(folder: Path) -> Path:
    """Copy the code below `folder`, unless the same code is there; returns where."""
    final = snapshot_path(folder)
    if final.exists():
        return final
    partial = aside(final)
    try:
        for name, path in _sources():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, partial / name)
        partial.rename(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not final.exists():  # or another submission was faster
            raise UserError(f"can't copy the code to {final}: {error.strerror}") from error
    return final


def check_snapshot(snapshot: Path | None) -> None:
    """Raise UserError unless this process runs the code of `snapshot`; None is any code."""
    if snapshot is None:
        return
    running = Path(pix2pix.__file__).resolve().parents[1]
    if running != snapshot.resolve():
        raise UserError(
            f"this job runs the code in {running}, not what was submitted, {snapshot}; let --setup "
            "leave PYTHONPATH alone"
        )


def _sources() -> Iterator[tuple[str, Path]]:
    """Yield (path below the snapshot, file) of every source file and template, in order."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None, f"{package} is no package"
        root = Path(spec.submodule_search_locations[0])
        for path in sorted((*root.rglob("*.py"), *root.rglob("*.md"))):
            yield f"{package}/{path.relative_to(root).as_posix()}", path
