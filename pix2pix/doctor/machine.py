"""Checks of the machine: Python, packages, processes, file systems, SLURM. None imports torch."""

import multiprocessing
import os
import platform
import shutil
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from pix2pix.data.fetch import chunks
from pix2pix.data.shards import place_of, read_manifest
from pix2pix.doctor.findings import Finding, Patient, fails, note, ok
from pix2pix.errors import UserError
from pix2pix.system.durable import flush
from pix2pix.system.machine import num_cores, processor_name

EXTRAS = {  # distribution: what it is for, and the extra that brings it
    "gradio": ("the page", "web"),
    "onnxruntime": ("export --onnx", "onnx"),
    "torch-fidelity": ("FID and KID", "metrics"),
    "lpips": ("LPIPS", "metrics"),
    "timm": ("pretrained encoders", "pretrained"),
    "scikit-image": ("the demo", "demo"),
}
READ_SECONDS = 3.0


def check_python(patient: Patient) -> list[Finding]:
    """Return rows on Python, the system and the processor."""
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    cores = num_cores()
    total = os.cpu_count() or cores
    return [
        ok("Python", system),
        ok("processor", f"{processor_name()}; {cores} of {total} cores are ours"),
    ]


def check_packages(patient: Patient) -> list[Finding]:
    """Return rows on required packages with their versions, and on the extras."""
    rows = []
    missing = []
    found = []
    for requirement in metadata.requires("pix2pix") or []:
        if "extra ==" in requirement:
            continue
        name = requirement.split(";")[0].split(">")[0].split("=")[0].strip()
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            if "platform_machine" not in requirement:
                missing.append(name)
    if missing:
        rows.append(fails("packages", f"{', '.join(missing)} missing", "pip install -e ."))
    else:
        rows.append(ok("packages", ", ".join(dict.fromkeys(found))))
    for name, (purpose, extra) in EXTRAS.items():
        try:
            rows.append(ok(f"extra [{extra}]", f"{name} {metadata.version(name)}: {purpose}"))
        except metadata.PackageNotFoundError:
            cure = f"pip install -e '.[{extra}]'"
            rows.append(note(f"extra [{extra}]", f"no {name}: {purpose}", cure))
    return rows


def check_processes(patient: Patient) -> list[Finding]:
    """Return a row on what loader processes need: shared memory, semaphores, a second process."""
    cure = "make /dev/shm writable (docker run --shm-size=1g), or give --num_workers 0"
    try:
        context = multiprocessing.get_context("spawn")
        with context.Lock():
            pass
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_greet, args=(sender,))
        process.start()
        answer = receiver.recv() if receiver.poll(20) else None
        process.join(5)
    except OSError as error:
        return [fails("loader processes", f"can't be made: {error.strerror}", cure)]
    if answer != "ready":
        return [fails("loader processes", "a second process does not answer", cure)]
    shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    return [ok("loader processes", f"start and answer; /dev/shm has {shm / 2**20:,.0f} MiB free")]


def check_run_dir(patient: Patient) -> list[Finding]:
    """Return rows on whether the run directory's file system does what checkpoints rely on."""
    if patient.run_dir is None:
        return []
    root = Path(patient.run_dir)
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    try:
        folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=existing))
    except OSError as error:
        cure = "choose another --run_dir, or make it writable for this user"
        return [fails("run_dir", f"can't write to {existing}: {error.strerror}", cure)]
    try:
        return [*_file_system_rows(folder), _lock_row(folder), _free_row(existing)]
    except OSError as error:  # a full disk, a quota
        cure = "make room, or choose another --run_dir"
        return [fails("run_dir", f"can't write to {existing}: {error.strerror}", cure)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _file_system_rows(folder: Path) -> list[Finding]:
    cure = "choose a --run_dir on a local disk, NFS or Lustre"
    (folder / "full").mkdir()
    (folder / "full" / "file").write_bytes(b"x")
    (folder / "aside").mkdir()
    (folder / "aside" / "file").write_bytes(b"y")
    try:
        (folder / "aside").rename(folder / "full")
        return [fails("run_dir renames", "a folder may be renamed onto a full one", cure)]
    except OSError:
        pass
    try:
        (folder / "aside").rename(folder / "final")
    except OSError as error:
        return [fails("run_dir renames", f"folders can't be renamed: {error.strerror}", cure)]
    rows = [ok("run_dir renames", "folders are renamed whole")]
    try:
        flush(folder / "final" / "file")
        flush(folder)
        rows.append(ok("run_dir durability", "files and folders can be flushed"))
    except OSError as error:
        text = f"fsync is refused ({error.strerror}): a power cut may lose the last checkpoint"
        rows.append(note("run_dir durability", text))
    return rows


def _lock_row(folder: Path) -> Finding:
    """Return a row on file locks: trainings need none; caches of shards and data_prep do."""
    what, file = "run_dir locks", folder / "lock"
    cure = "trainings need none; put --shards_cache and the shards to be made on another disk"
    first, second = (FileLock(file, fallback_to_soft=False) for _ in range(2))
    try:
        first.acquire(timeout=0)
        try:
            second.acquire(timeout=0)
            return note(what, "file locks keep nobody out", cure)
        except Timeout:
            return ok(what, "file locks keep others out")
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        return note(what, f"there are no file locks ({reason})", cure)
    finally:
        first.release()
        second.release()


def _free_row(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:,.1f} GiB free; a checkpoint at full width takes 0.9"
    cure = "make room, or choose another --run_dir"
    return ok("run_dir space", text) if free > 4 * 2**30 else note("run_dir space", text, cure)


def check_shards(patient: Patient) -> list[Finding]:
    """Return rows on the shards: their manifests, and how fast they are read."""
    rows = []
    for place in patient.shards:
        root = os.path.expanduser(place)
        try:
            splits = read_manifest(root).splits
            counts = ", ".join(f"{name} {split.num_samples:,}" for name, split in splits.items())
            rows.append(ok("shards", f"{place}: {counts} samples"))
            shards = [shard for split in splits.values() for shard in split.shards]
            num_bytes, seconds = _read([place_of(root, shard) for shard in shards])
        except UserError as error:
            rows.append(fails("shards", str(error), "give --shards what data_prep has made"))
            continue
        rate = num_bytes / seconds / 2**20
        text = f"{rate:,.0f} MiB/s, {num_bytes / 2**20:,.0f} MiB read (a cache may have helped)"
        rows.append(ok("shards' read rate", text))
    return rows


def _read(places: list[str]) -> tuple[int, float]:
    """Return (bytes, seconds) of reading files or URLs for a few seconds at most."""
    began = time.perf_counter()
    num_bytes = 0
    for place in places:
        for chunk in chunks(place):
            num_bytes += len(chunk)
            if time.perf_counter() - began > READ_SECONDS:
                return num_bytes, time.perf_counter() - began
    return num_bytes, max(time.perf_counter() - began, 1e-6)


def check_slurm(patient: Patient) -> list[Finding]:
    """Return rows on SLURM: whether it answers, its partitions, its accounting."""
    if shutil.which("sinfo") is None:
        return [note("SLURM", "no sinfo here", "not needed for a training on this machine")]
    told = _ask("sinfo", "--noheader", "--format=%R %D %G")
    if isinstance(told, str):
        return [note("SLURM", told, "ask the cluster's administrators, or run without SLURM")]
    rows = [ok("SLURM", "; ".join(sorted(set(told))) or "no partition")]
    jobs = _ask("sacct", "--noheader", "--allocations", "--format=JobID")
    if isinstance(jobs, str):
        rows.append(note("SLURM accounting", jobs, "states of ended jobs can't be told"))
    else:
        rows.append(ok("SLURM accounting", "sacct answers"))
    return rows


def _ask(*command: str) -> list[str] | str:
    """Return what a program prints, by line; or why it did not, as text."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} does not answer ({type(error).__name__})"
    if ended.returncode:
        complaint = ended.stderr.strip().splitlines()
        return complaint[-1] if complaint else f"{command[0]} fails with {ended.returncode}"
    return [" ".join(line.split()) for line in ended.stdout.splitlines() if line.strip()]


def _greet(sender: "multiprocessing.connection.Connection[str, str]") -> None:
    sender.send("ready")
