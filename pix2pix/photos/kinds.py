"""Kinds of files: which are photographs, what opens them, and what to do first with the others."""

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from PIL import features

from pix2pix.photos.photo_error import PhotoError

# Kind (Pillow's name of the format where it has one) → extensions of its files.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pam"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JXL": (".jxl",),
}
EXTENSIONS = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

# Their decoders are large native libraries with a history of holes, and run in a process of their
# own (helper.py).
IN_HELPER = frozenset(("TIFF", "JPEG2000", "AVIF", "HEIF", "JXL"))

# What a container of the ISO base media format says it holds: its major brand.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_MAGIC = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"II\*\0.{4}CR\x02", "raw"),  # Canon's CR2, a TIFF by its first bytes
    (rb"(II[*+]\0|MM\0[*+])", "TIFF"),
    (rb"(IIRO|IIRS|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM)", "raw"),
    (rb"BM", "BMP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"P([1-6]\s|7\n)", "PPM"),
    (rb"(\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)", "JPEG2000"),
    (rb"(\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a)", "JXL"),
    (rb"....ftypcrx ", "raw"),
    (rb"....ftyp(avif|avis)", "AVIF"),
    (rb"....ftypmi[af]1.{0,40}avif", "AVIF"),
    (rb"....ftyp(" + b"|".join(_HEIF_BRANDS) + rb")", "HEIF"),
    (rb"....(ftyp|moov|mdat|wide)", "video"),
    (rb"(\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba)", "video"),
    (rb"%PDF", "document"),
)
_MAGIC_PATTERNS = [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in _MAGIC]


@dataclass(frozen=True)
class Refused:
    """A kind of file that holds pictures and is not opened, and what to do first."""

    reason: str
    advice: str
    suffixes: tuple[str, ...]


REFUSED = {
    "raw": Refused(
        "raw_file",
        "a camera's raw file is not developed here; develop it first (darktable, RawTherapee, the "
        "maker's program) to a 16-bit TIFF",
        (
            ".dng",
            ".nef",
            ".nrw",
            ".cr2",
            ".cr3",
            ".crw",
            ".arw",
            ".srf",
            ".sr2",
            ".orf",
            ".rw2",
            ".raf",
            ".pef",
            ".srw",
            ".x3f",
            ".mrw",
            ".erf",
            ".kdc",
            ".dcr",
            ".raw",
            ".3fr",
            ".iiq",
            ".mos",
        ),
    ),
    "video": Refused(
        "video",
        "a video is not opened; take single frames of it first (ffmpeg -i FILE %05d.png)",
        (
            ".mp4",
            ".mov",
            ".avi",
            ".mkv",
            ".m4v",
            ".mpg",
            ".mpeg",
            ".wmv",
            ".webm",
            ".mts",
            ".3gp",
        ),
    ),
    "document": Refused(
        "document",
        "a document is not opened; take its pictures out first (pdfimages -all FILE picture)",
        (".pdf",),
    ),
}


def sniff(head: bytes) -> str | None:
    """Return the kind that a file's first 64 bytes name: of SUFFIXES, of REFUSED, or None."""
    for pattern, kind in _MAGIC_PATTERNS:
        if pattern.match(head):
            return kind
    return None


def refusal_of_suffix(suffix: str) -> Refused | None:
    """Return why files with this extension (in small letters, with its dot) are refused."""
    return next((kind for kind in REFUSED.values() if suffix in kind.suffixes), None)


def tell_others(names: Iterable[str]) -> list[str]:
    """Return lines about files of other kinds: how many of each extension, and what to do first."""
    suffixes = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in names)
    if not suffixes:
        return []
    told = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common())
    lines = [f"left alone for their extensions: {suffixes.total():,} ({told})"]
    refused = {refusal_of_suffix(suffix): suffix for suffix in suffixes}
    return lines + [f"    {suffix}: {kind.advice}" for kind, suffix in refused.items() if kind]


def openable_kind(head: bytes) -> str:
    """Return the kind of a photograph that can be opened here, by its first bytes.

    Raises:
        PhotoError: not_an_image; raw_file, video, document; needs_extra where a package is missing.
    """
    kind = sniff(head)
    if kind is None:
        raise PhotoError("not_an_image", f"not a picture in one of the formats {names_of_kinds()}")
    if kind in REFUSED:
        raise PhotoError(REFUSED[kind].reason, REFUSED[kind].advice)
    missing = _missing(kind)
    if missing:
        raise PhotoError("needs_extra", missing)
    return kind


def names_of_kinds() -> str:
    """Return the formats by name, for a message."""
    return ", ".join(SUFFIXES)


def has_deep_formats() -> bool:
    """Return True if the packages of the extra [formats] are installed."""
    return _is_installed("imagecodecs") and _is_installed("tifffile")


def _missing(kind: str) -> str:
    if kind == "HEIF" and not _is_installed("pillow_heif"):
        return "HEIC needs the package pillow-heif: pip install -e '.[heif]'"
    if kind == "JXL" and not _is_installed("imagecodecs"):
        return "JPEG XL needs the package imagecodecs: pip install -e '.[formats]'"
    if kind == "AVIF" and not features.check("avif"):
        return "this build of Pillow has no AVIF; pip install --upgrade pillow"
    if kind == "JPEG2000" and not features.check("jpg_2000"):
        return "this build of Pillow has no JPEG 2000; pip install --upgrade pillow"
    return ""


@cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
