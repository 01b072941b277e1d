"""Download the photographs of COCO 2017, and what is known of them, for make_shards to read.

    python -m data_prep.download_coco --out coco --splits train2017,val2017

Stop it as you like: the same command goes on where it was.
"""

import re
import shlex
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EINVAL
from functools import partial
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile, ZipFile

from data_prep.download import DamagedError, Patience, ask_size, fetch, part_path, size_of
from data_prep.ownership import take_lock
from data_prep.shard_file import disk_errors
from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.cli.progress import bytes_text, progress, say
from pix2pix.errors import UserError
from pix2pix.system.durable import aside, publish_aside

COCO = "http://images.cocodataset.org"

# Sizes in bytes as that host sent them, also listed by TensorFlow Datasets (url_checksums/coco.txt)
# but for unlabeled2017. Another size is worth a word: a mirror may have packed them anew.
_KNOWN_SIZES = {
    "train2017.zip": 19_336_861_798,
    "val2017.zip": 815_585_330,
    "unlabeled2017.zip": 20_126_613_414,
    "annotations_trainval2017.zip": 252_907_541,
}

# Which archive lists the photographs of a split, with size and license. Captions and instances list
# the same ones; the captions are the smaller file.
_LISTED_IN = {
    "train2017": "annotations_trainval2017.zip",
    "val2017": "annotations_trainval2017.zip",
    "unlabeled2017": "image_info_unlabeled2017.zip",
}
_LISTS = ("captions", "instances", "image_info")

_CHUNK = 2**20  # bytes


@dataclass(frozen=True)
class DownloadCocoOptions:
    """Flags of `python -m data_prep.download_coco`."""

    out: Path = option(help="folder for the archives", metavar="DIR")
    splits: tuple[Literal["train2017", "val2017", "unlabeled2017"], ...] = option(
        ("train2017", "val2017"),
        help="train2017 has 19.3 GB, val2017 0.8 GB, unlabeled2017 20.1 GB",
        metavar="NAME,…",
    )
    annotations: bool = option(
        True, help="also the list of the photographs, with sizes and licenses (0.3 GB)"
    )
    mirror: str = option(COCO, help="server to use, with the same zips/ in it", metavar="URL")

    def __post_init__(self) -> None:
        if len(set(self.splits)) < len(self.splits):
            raise UserError(f"--splits {','.join(self.splits)} names one twice; name each once")
        if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", self.mirror):
            raise UserError(
                f"--mirror {self.mirror}: give an address that begins with http:// or https://, "
                f"such as {COCO}"
            )

    @property
    def archives(self) -> dict[str, str]:
        """Return the address of each file wanted, by its name."""
        base = self.mirror.rstrip("/")
        names = {f"{split}.zip": "zips" for split in self.splits}
        if self.annotations:
            names |= {_LISTED_IN[split]: "annotations" for split in self.splits}
        return {name: f"{base}/{folder}/{name}" for name, folder in names.items()}


def download_coco(options: DownloadCocoOptions, patience: Patience | None = None) -> int:
    """Download the photographs of COCO 2017, with the list of their sizes and licenses.

    Stop it as you like: the same command goes on where it was. Each archive is checked when it is
    complete, and stays an archive: make_shards reads it as it is. Proxies are taken from
    http_proxy and https_proxy.
    """
    out = options.out
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            num_done = _download(options, patience or Patience())
            num_done += _unpack_lists(options)
    if not num_done:
        print(f"nothing to do: {out} is finished")
    print(_next_steps(options))
    return 0


def check_archive(path: Path, title: str) -> None:
    """Read every member, against its CRC-32. Raises DamagedError."""
    with _damage(), ZipFile(path) as archive:
        members = archive.infolist()
        num_bytes = sum(member.file_size for member in members)
        with progress("bytes", num_bytes, title=title) as bar:
            for member in members:
                with archive.open(member) as file:
                    while data := file.read(_CHUNK):
                        bar.update(len(data))


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what zipfile raises on bytes that are no archive, or were one, into a DamagedError."""
    try:
        yield
    except (BadZipFile, EOFError, RuntimeError, ValueError, zlib.error) as error:
        raise DamagedError(str(error) or "it ends early") from error
    except OSError as error:
        if error.errno != EINVAL:  # a place before the beginning, asked for by the archive
            raise
        raise DamagedError("it points outside of itself") from error


def _download(options: DownloadCocoOptions, patience: Patience) -> int:
    """Fetch what is missing, and return how many files that were."""
    out = options.out
    missing = {n: url for n, url in options.archives.items() if not _is_there(out / n)}
    sizes = {name: ask_size(url, patience) for name, url in missing.items()}
    for name, num_bytes in sizes.items():
        _note_size(name, num_bytes)
    _check_space(out, sizes)
    for name, url in missing.items():
        check = partial(check_archive, title=f"checking {name}")
        fetch(url, out / name, check, patience, sizes[name])
        say(f"{name}: {bytes_text(size_of(out / name))}, complete and checked")
    return len(missing)


def _is_there(archive: Path) -> bool:
    """Return True if it was downloaded; raises UserError for a file that is not of our making."""
    if not archive.exists():
        return False
    try:
        with _damage(), ZipFile(archive):  # reads the directory, which is at the end
            return True
    except DamagedError as error:
        raise UserError(
            f"{archive} is there, but is no whole archive ({error}), so something else has made "
            "it; remove it and run the same command again"
        ) from error


def _note_size(name: str, num_bytes: int | None) -> None:
    known = _KNOWN_SIZES.get(name)
    if known and num_bytes and known != num_bytes:
        say(f"note: {name} has {num_bytes:,} bytes there; COCO's own has {known:,}")


def _check_space(out: Path, sizes: dict[str, int | None]) -> None:
    """Raise UserError if the disk cannot take what is still to come."""
    to_come = {
        name: (num_bytes or _KNOWN_SIZES.get(name, 0)) - size_of(part_path(out / name))
        for name, num_bytes in sizes.items()
    }
    needed, free = sum(to_come.values()), shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"{out} has {bytes_text(free)} free, and {bytes_text(needed)} are needed for "
            f"{', '.join(to_come)}; free some, or give another --out or fewer --splits"
        )


def _unpack_lists(options: DownloadCocoOptions) -> int:
    """Unpack the lists of photographs from their archives; return how many were missing."""
    missing = [split for split in options.splits if options.annotations]
    missing = [split for split in missing if _list_of(options.out, split) is None]
    for split in missing:
        with ZipFile(options.out / _LISTED_IN[split]) as archive:
            names = [f"annotations/{kind}_{split}.json" for kind in _LISTS]
            name = next((name for name in names if name in archive.namelist()), None)
            if name is None:
                raise UserError(
                    f"{archive.filename} has no list of {split} in it (one of {', '.join(names)}); "
                    "remove it, and try another --mirror"
                )
            target = options.out / name
            target.parent.mkdir(exist_ok=True)
            for leftover in target.parent.glob(f".{target.name}.*.tmp"):
                leftover.unlink()
            with archive.open(name) as packed, aside(target).open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _CHUNK)
            publish_aside(target)
    return len(missing)


def _list_of(out: Path, split: str) -> Path | None:
    """Return the list of photographs that was unpacked for a split."""
    paths = (out / "annotations" / f"{kind}_{split}.json" for kind in _LISTS)
    return next((path for path in paths if path.exists()), None)


def _next_steps(options: DownloadCocoOptions) -> str:
    lines = ["next:"]
    for split in options.splits:
        archive = shlex.quote(str(options.out / f"{split}.zip"))
        lines.append(f"  python -m data_prep.make_shards --photos {archive} \\")
        photo_list = _list_of(options.out, split) if options.annotations else None
        if photo_list is not None:
            lines.append(f"      --annotations {shlex.quote(str(photo_list))} \\")
        lines.append(f"      --out shards --split {split.removesuffix('2017')}")
    return "\n".join(lines)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Be the only download into `out`; raises UserError while there is another.

    The kernel releases the lock however a process ends.
    """
    lock = take_lock(out / ".download.lock")
    if lock is None:
        raise UserError(f"another download into {out} is running; wait for it")
    try:
        yield
    finally:
        lock.release()


def command() -> None:
    """Run `pix2pix-download-coco`, and this file."""
    main(download_coco, DownloadCocoOptions)


if __name__ == "__main__":
    command()
