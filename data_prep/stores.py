"""Where shards are copied to: a folder, a store (s3, gs, az), a data set on Hugging Face."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from glob import has_magic
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Protocol

from data_prep.shard_file import disk_errors
from pix2pix.data.fetch import check_store, chunks
from pix2pix.data.store import ANSWER_SECONDS, BLOCK, store_options, within
from pix2pix.data.store_errors import reason
from pix2pix.errors import UserError
from pix2pix.system.durable import aside, leftovers, publish_aside

_AT_ONCE = 4  # transfers
_LIST_SECONDS = 10 * ANSWER_SECONDS  # for a folder of a store: a page of 1,000 names each answer
_HUB = "hf://"
_HUB_BATCH = 50  # files in a commit: the hub limits commits per hour

Put = tuple[Path, str]  # a file here, and its name there


class Target(Protocol):
    """A place that files are copied to. `batch`: how many are best put at once."""

    batch: int

    def sizes(self) -> dict[str, int]:
        """Return the size of each file that is there, by name."""

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file that is there, in hex."""

    def put(self, files: Sequence[Put]) -> None:
        """Put files there, each complete or not at all. Raises UserError, naming the place."""


def open_target(place: str) -> Target:
    """Return the target for a folder or URL; raises UserError where it cannot be written to."""
    if place.startswith(_HUB):
        return HubTarget(place)
    if "://" not in place:
        return FolderTarget(Path(os.path.expanduser(place)))
    if place.startswith(("http://", "https://")):
        raise UserError(f"{place}: a web server takes no files; copy to a folder or a store")
    return StoreTarget(place)


class FolderTarget:
    """A folder of this machine."""

    batch = _AT_ONCE

    def __init__(self, root: Path) -> None:
        self.root = root
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            for file, _ in leftovers(root):
                file.unlink()

    def sizes(self) -> dict[str, int]:
        """As `Target` says."""
        return {path.name: path.stat().st_size for path in self.root.iterdir() if path.is_file()}

    def digest(self, name: str) -> str:
        """As `Target` says."""
        return digest_of(self.root / name)

    def put(self, files: Sequence[Put]) -> None:
        """As `Target` says."""
        with disk_errors(self.root):
            for source, name in files:
                shutil.copyfile(source, aside(self.root / name))
                publish_aside(self.root / name)


class StoreTarget:
    """A folder of a store, through fsspec. Stores make a file visible when all of it is there."""

    batch = _AT_ONCE

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.system, self.path = file_system(self.url)

    def sizes(self) -> dict[str, int]:
        """As `Target` says."""
        self.system.invalidate_cache()
        with store_errors("list", self.url):
            try:
                entries = within(ANSWER_SECONDS, lambda: self.system.ls(self.path, detail=True))
            except FileNotFoundError:
                return {}
        return {entry["name"].rpartition("/")[2]: entry["size"] or 0 for entry in entries}

    def digest(self, name: str) -> str:
        """As `Target` says."""
        return digest_at(f"{self.url}/{name}")

    def put(self, files: Sequence[Put]) -> None:
        """As `Target` says."""
        with ThreadPoolExecutor(_AT_ONCE) as pool, store_errors("write to", self.url):
            list(pool.map(self._put_one, files))

    def _put_one(self, file: Put) -> None:
        source, name = file
        seconds = ANSWER_SECONDS * (1 + _AT_ONCE * source.stat().st_size / BLOCK)
        within(seconds, lambda: self.system.put_file(str(source), self._at(name)))

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"


class HubTarget:
    """A data set on the Hugging Face hub, hf://datasets/OWNER/NAME[/FOLDER]; made if need be.

    One that is made is private: who may see photographs is for their owner to say.
    """

    batch = _HUB_BATCH

    def __init__(self, url: str) -> None:
        check_store(url)
        from huggingface_hub import HfApi

        match url.removeprefix(_HUB).rstrip("/").split("/"):
            case ["datasets", owner, name, *folder]:
                self.repo, self.folder = f"{owner}/{name}", "/".join(folder)
            case _:
                raise UserError(f"{url}: on the hub, give hf://datasets/OWNER/NAME")
        self.url = url
        self.api = HfApi()
        self._sums: dict[str, str] = {}
        with store_errors("write to", url):
            self.api.create_repo(self.repo, repo_type="dataset", private=True, exist_ok=True)

    def sizes(self) -> dict[str, int]:
        """As `Target` says."""
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        found = {}
        with store_errors("list", self.url):
            try:
                tree = self.api.list_repo_tree(
                    self.repo, self.folder or None, repo_type="dataset", recursive=False
                )
                for entry in tree:
                    if isinstance(entry, RepoFile):
                        name = entry.path.rpartition("/")[2]
                        found[name] = entry.size
                        if entry.lfs is not None:
                            self._sums[name] = entry.lfs.sha256
            except EntryNotFoundError:
                return {}
        return found

    def digest(self, name: str) -> str:
        """As `Target` says. The hub tells it of large files."""
        if name in self._sums:
            return self._sums[name]
        with store_errors("read", self.url):
            file = self.api.hf_hub_download(self.repo, self._at(name), repo_type="dataset")
        return digest_of(Path(file))

    def put(self, files: Sequence[Put]) -> None:
        """As `Target` says; in one commit."""
        from huggingface_hub import CommitOperationAdd

        operations = [
            CommitOperationAdd(path_in_repo=self._at(name), path_or_fileobj=str(source))
            for source, name in files
        ]
        with store_errors("write to", self.url):
            self.api.create_commit(
                self.repo,
                operations,
                commit_message=f"{len(operations)} files of shards",
                repo_type="dataset",
            )

    def _at(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it. Raises UserError."""
    check_store(url)
    import fsspec.core

    with store_errors("open", url):
        system, path = fsspec.core.url_to_fs(url, **store_options(url))
        return system, path


def list_store(url: str) -> list[str]:
    """Return the URLs of all files in a store that `url` means: a folder, a prefix or a glob.

    Raises UserError, naming the place and the cause.
    """
    system, path = file_system(url)
    with store_errors("list", url):
        found = within(_LIST_SECONDS, lambda: _list(system, path))
    # Under the scheme that was given: Azure's library calls az by another name, abfs.
    scheme = url.partition("://")[0]
    return [f"{scheme}://{name.lstrip('/')}" for name in found]


def _list(system: Any, path: str) -> Iterable[str]:
    if has_magic(path):
        return system.glob(path)
    return system.find(path) if system.isdir(path) else system.glob(f"{path}*")


@contextmanager
def store_errors(doing: str, url: str) -> Iterator[None]:
    """Turn what a store's library raises into a UserError without its words: they hold secrets."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each library has types of its own
        raise UserError(f"cannot {doing} {url}: {reason(url, error)}") from None


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def digest_at(place: str) -> str:
    """Return the SHA-256 of what lies at a path or URL, in hex. Raises FetchError."""
    digest = sha256()
    for chunk in chunks(place):
        digest.update(chunk)
    return digest.hexdigest()
