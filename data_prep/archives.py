"""A zip or a tar of photographs, read in place: clusters are slow with many small files.

Nothing is ever unpacked, so a hostile name is no more than a name.
"""

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from data_prep.photos import FolderSource, Photo, Source, is_visible, sort_files, without_others
from pix2pix.errors import UserError
from pix2pix.photos.photo import PhotoError

# First bytes of the file, its kind, the program that unpacks it.
_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gunzip -k"),
    (b"BZh", "bzip2", "bunzip2 -k"),
    (b"\xfd7zXZ", "xz", "unxz -k"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, bytes of name and extra
_IS_ENCRYPTED, _IS_UTF_8 = 0x1, 0x800  # flags of a zip's member


def open_source(path: Path) -> Source:
    """Open the folder, zip or tar at `path`; raises UserError where none can be read."""
    if not path.is_file():
        return FolderSource(path)
    try:
        with path.open("rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
        if _is_tar(head):  # before the zip: a zip may be the last member of a tar
            return TarSource(path)
        if zipfile.is_zipfile(path):
            return ZipSource(path)
    except OSError as error:
        raise UserError(f"--photos {path} cannot be read: {error.strerror}") from error
    for magic, kind, program in _COMPRESSED:
        if head.startswith(magic):
            raise UserError(
                f"--photos {path} is compressed with {kind}, which can be read from its start "
                f"only: unpack it ({program} {path.name}) to a plain tar or a folder"
            )
    if head.startswith(b"PK\3\4"):
        raise UserError(f"--photos {path} is a zip that is cut short; copy it again")
    raise UserError(f"--photos {path} is neither a folder nor a zip nor a tar")


@dataclass(frozen=True)
class _Archive:
    """An archive, opened by each process that has a copy."""

    path: Path

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.path,)  # the open file stays behind

    def list_files(self) -> list[Photo]:
        """Return every member that is not hidden."""
        raise NotImplementedError

    def list_photos(self) -> list[Photo]:
        """Return the members that are photographs by their names."""
        return without_others(self.list_files())

    @cached_property
    def _file(self) -> BinaryIO:
        try:
            return self.path.open("rb", buffering=0)
        except OSError as error:  # not for each photograph: all of them would be "unreadable"
            raise UserError(f"{self.path} cannot be opened: {error.strerror}") from error

    def _read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes, read at a position of their own: threads may share the file."""
        data = os.pread(self._file.fileno(), size, offset)
        while len(data) < size:  # a network file system may give less than asked for
            more = os.pread(self._file.fileno(), size - len(data), offset + len(data))
            if not more:
                raise PhotoError("damaged", f"{self.path} ends before its member does")
            data += more
        return data


class ZipSource(_Archive):
    """The photographs of a zip: stored or deflated, as nearly all are."""

    def list_files(self) -> list[Photo]:
        """Return the members, from the directory at the archive's end."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                infos = archive.infolist()
        except OSError as error:
            raise UserError(f"--photos {self.path} cannot be read: {error.strerror}") from error
        except Exception as error:  # zipfile raises nearly every type on a broken directory
            raise UserError(f"--photos {self.path} is a damaged zip: {error}") from error
        length = self.path.stat().st_size
        return _list(self.path, (_zip_photo(info, length) for info in infos if not info.is_dir()))

    def read(self, photo: Photo) -> bytes:
        """Return the member, checked by its CRC; raises OSError, PhotoError."""
        start, stored, method, checksum = photo.place
        signature, *lengths = _LOCAL_HEADER.unpack(self._read_at(start, _LOCAL_HEADER.size))
        if signature != b"PK\3\4":
            raise PhotoError("damaged", "no member of the zip where one should be")
        data = self._read_at(start + _LOCAL_HEADER.size + sum(lengths), stored)
        if method == zipfile.ZIP_DEFLATED:
            try:  # a bomb claims few bytes and has many: one more than claimed is enough to know
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, photo.size + 1)
            except zlib.error as error:
                raise PhotoError("damaged", f"cannot be unpacked: {error}") from error
        if len(data) != photo.size or zlib.crc32(data) != checksum:
            raise PhotoError("damaged", "not what its checksum in the zip says")
        return data


class TarSource(_Archive):
    """The photographs of a tar that is not compressed."""

    def list_files(self) -> list[Photo]:
        """Return the members, from their headers alone."""
        descriptor = self._file.fileno()
        try:
            with open(descriptor, "rb", closefd=False) as file:
                photos = list(_tar_photos(_members(file)))
        except OSError as error:
            raise UserError(f"--photos {self.path} cannot be read: {error.strerror}") from error
        except Exception as error:  # tarfile raises many types on a broken header
            raise UserError(
                f"--photos {self.path} is a damaged tar: {error}; copy or make it again"
            ) from error
        return _list(self.path, photos)

    def read(self, photo: Photo) -> bytes:
        """Return the member; raises OSError, PhotoError."""
        return self._read_at(photo.place[0], photo.size)


def _list(path: Path, photos: Iterable[Photo]) -> list[Photo]:
    """Sorted; of several with one name the last counts, as if they were unpacked."""
    photos = [photo for photo in photos if is_visible(photo.name)]
    last = {photo.name: photo for photo in photos}
    return sort_files(
        path,
        (
            photo if last[photo.name] is photo else replace(photo, reject="replaced")
            for photo in photos
        ),
    )


def _name(stored: str) -> str:
    """Return a member's path as a folder would have it: "a/b.jpg" for "./a//b.jpg", "/a/b.jpg"."""
    parts = stored.partition("\0")[0].split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return its bytes as they are: zipfile reads those not marked as UTF-8 as code page 437."""
    coding = "utf-8" if info.flag_bits & _IS_UTF_8 else "cp437"
    return _name(os.fsdecode(info.orig_filename.encode(coding)))


def _zip_photo(info: zipfile.ZipInfo, length: int) -> Photo:
    """Return the photograph of a member of a zip of `length` bytes."""
    reject = None
    if stat.S_ISLNK(info.external_attr >> 16):
        reject = "link"
    elif info.flag_bits & _IS_ENCRYPTED:
        reject = "encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reject = "unsupported_member"
    elif not 0 <= info.header_offset < length:
        reject = "damaged"
    elif info.compress_size > info.file_size + info.file_size // 100 + 100:
        reject = "damaged"  # no deflate grows its input so; what it claims would be read
    place = (info.header_offset, info.compress_size, info.compress_type, info.CRC)
    return Photo(_zip_name(info), info.file_size, place, reject)


def _is_tar(head: bytes) -> bool:
    """Return True for a block that begins a member of a tar: its own checksum says so."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Read the members of a tar, or of several that were joined end to end.

    tarfile ends its listing at a damaged header as it does at the end. So zero blocks, which end
    a tar, have to follow.

    Raises:
        tarfile.TarError: the rest cannot be read; as tarfile raises many other types.
        OSError: from the disk.
    """
    start, length = 0, os.fstat(file.fileno()).st_size
    while start < length:
        file.seek(start)
        with tarfile.open(
            fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for member in archive:
                if member.size < 0:  # tarfile would go back, and round and round
                    raise tarfile.ReadError(f"{member.name} has a size of {member.size}")
                yield member
        start = _after_zeros(file, archive.offset)


def _after_zeros(file: BinaryIO, offset: int) -> int:
    """Return where the zero blocks at `offset` end; raises ReadError where there is none."""
    zeros = bytes(tarfile.BLOCKSIZE)
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block != zeros:
        problem = "no header where one should be" if block else "the end is missing"
        raise tarfile.ReadError(f"{problem}, at byte {offset:,}")
    while block == zeros:
        offset += tarfile.BLOCKSIZE
        block = file.read(tarfile.BLOCKSIZE)
    return offset


def _tar_photos(members: Iterable[tarfile.TarInfo]) -> Iterator[Photo]:
    """Yield photographs: a hard link is the file before it, a symbolic one may lead anywhere."""
    files: dict[str, Photo] = {}
    for member in members:
        name = _name(member.name)
        if member.isdir():
            continue
        target = files.get(_name(member.linkname)) if member.islnk() else None
        if target is not None:
            photo = replace(target, name=name)
        elif member.islnk() or member.issym():
            photo = Photo(name, 0, reject="link")
        elif member.isdev():
            photo = Photo(name, 0, reject="not_a_file")
        else:
            reject = "unsupported_member" if member.issparse() else None
            photo = Photo(name, member.size, (member.offset_data,), reject)
        files[name] = photo
        yield photo
