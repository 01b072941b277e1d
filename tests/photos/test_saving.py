"""What goes with a photograph: resolution, captions, dates, the time of its file."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2pix.photos import tiff_writing
from pix2pix.photos.metadata import METADATA_LEFT_OUT, Metadata, jpeg_segment_of_iptc
from pix2pix.photos.photo import PhotoError, open_picture
from pix2pix.photos.saving import SAVED_AS_8_BITS, remove_leftovers, save_pages
from tests.photos.odd_files import ramps

IPTC = b"\x1c\x02\x78\x00\x0bGrandmother"
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:rights="me"/></x:xmpmeta>'
TIME_NS = 10**18


def old_photograph(kind: str = "JPEG") -> bytes:
    """A file that says all that people write into one; it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[270] = "Großmutter, 1943".encode()
    exif[315], exif[33432] = "the author", "(c) me"
    exif[306] = "2001:02:03 04:05:06"
    fields = exif.get_ifd(0x8769)
    fields[0x9003], fields[0xA001], fields[0x9286] = "1943:06:01 12:00:00", 2, b"ASCII\0\0\0found"
    fields[0xA002], fields[0xA003] = 56, 40
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 3.0)})
    thumbnail = exif.get_ifd(1)
    thumbnail[0x0201], thumbnail[0x0202] = 0, 0
    file = io.BytesIO()
    told = {"extra": jpeg_segment_of_iptc(IPTC), "comment": "text"} if kind == "JPEG" else {}
    Image.fromarray(ramps(channels=3)).save(file, kind, exif=exif, xmp=XMP, dpi=(600, 600), **told)
    return file.getvalue()


def metadata_of(source: bytes | Path) -> Metadata:
    picture = open_picture(source, 10**6)
    metadata = picture.metadata
    picture.close()
    return metadata


@pytest.fixture(params=[True, False], ids=["with the extra", "without"])
def has_extra(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    monkeypatch.setattr(tiff_writing, "has_deep_formats", lambda: request.param)
    return request.param


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_what_a_photograph_says_goes_with_it(tmp_path: Path, suffix: str, has_extra: bool) -> None:
    target = tmp_path / f"a{suffix}"
    page = ramps(56, 40, 3)
    lost = save_pages([page], target, metadata_of(old_photograph()), 1, (TIME_NS, TIME_NS))
    assert target.stat().st_mtime_ns == TIME_NS
    with Image.open(target) as saved:
        exif = saved.getexif()
        fields, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert exif.get(0x0112, 1) == 1
        assert exif[270].encode("latin-1").decode() == "Großmutter, 1943"
        assert (exif[315], exif[33432], exif[306]) == (
            "the author",
            "(c) me",
            "2001:02:03 04:05:06",
        )
        assert fields[0x9003] == "1943:06:01 12:00:00"
        assert bytes(fields[0x9286]) == b"ASCII\0\0\0found"
        assert fields[0xA001] == 1  # sRGB
        assert (fields[0xA002], fields[0xA003]) == (40, 56)
        assert place[2] == (48.0, 8.0, 3.0)
        assert 0x0201 not in exif.get_ifd(1)
    again = metadata_of(target)
    assert again.dpi == pytest.approx((600, 600), rel=1e-4)
    assert again.xmp == XMP.replace(b'"6"', b'"1"')
    keeps_iptc = suffix in (".jpg", ".tif")
    assert again.iptc == (IPTC if keeps_iptc else b"")
    assert lost == ([] if keeps_iptc else [METADATA_LEFT_OUT])
    if suffix in (".jpg", ".png"):
        assert again.text == {"comment": "text"}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_other_formats_say_it_as_well(kind: str) -> None:
    metadata = metadata_of(old_photograph(kind))
    exif = metadata.exif_of_size(40, 56)
    assert exif[33432] == "(c) me"
    assert 0x0112 not in exif
    if kind != "TIFF":  # Pillow writes no directories into one; ours are read above
        assert exif.get_ifd(0x8769)[0x9003] == "1943:06:01 12:00:00"
    if kind in ("PNG", "TIFF"):
        assert metadata.dpi == pytest.approx((600, 600), rel=1e-4)
    if kind in ("WEBP", "AVIF"):  # Pillow writes it into these
        assert metadata.xmp == XMP.replace(b'"6"', b'"1"')


def test_a_photograph_that_says_nothing_is_given_no_words(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(ramps(channels=3)).save(file, "JPEG", exif=exif)
    assert metadata_of(file.getvalue()) == Metadata()
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        target = tmp_path / f"a{suffix}"
        save_pages([ramps(56, 40, 3)], target, Metadata())
        assert metadata_of(target) == Metadata()


def test_16_bits_stay_in_png_and_tiff(tmp_path: Path) -> None:
    page = ramps(56, 40, 3, 16)
    for suffix in (".png", ".tif"):
        assert save_pages([page], tmp_path / f"a{suffix}", Metadata()) == []
    assert np.array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), page)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), page)
    for suffix in (".jpg", ".webp"):
        assert save_pages([page], tmp_path / f"a{suffix}", Metadata()) == [SAVED_AS_8_BITS]


def test_pages_come_back_as_one_tiff(tmp_path: Path, has_extra: bool) -> None:
    pages = [ramps(56, 40, 3), ramps(56, 40, 3)[::-1].copy(), ramps(30, 70, 3)]
    save_pages(iter(pages), tmp_path / "a.tif", metadata_of(old_photograph()), len(pages))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.pages) == 3
        for page, saved in zip(pages, tiff.pages, strict=True):
            assert np.array_equal(saved.asarray(), page)
    for suffix in (".jpg", ".png"):
        with pytest.raises(PhotoError, match="3 pages; choose --format tiff"):
            save_pages(iter(pages), tmp_path / f"a{suffix}", Metadata(), len(pages))


def test_a_page_that_cannot_be_read_leaves_no_half_file(tmp_path: Path) -> None:
    def pages() -> Iterator[np.ndarray]:
        yield ramps(56, 40, 3)
        raise PhotoError("truncated", "the second page is not there")

    with pytest.raises(PhotoError, match="second page"):
        save_pages(pages(), tmp_path / "a.tif", Metadata(), 2)
    assert os.listdir(tmp_path) == []


def test_metadata_too_long_for_a_jpeg_are_counted(tmp_path: Path) -> None:
    lost = save_pages([ramps(56, 40, 3)], tmp_path / "a.jpg", Metadata(xmp=b"<" + b"x" * 70_000))
    assert lost == [METADATA_LEFT_OUT]


UNFINISHED = """
import sys
from pathlib import Path
from pix2pix.photos.metadata import Metadata
from pix2pix.photos.saving import save_pages
def pages():
    print("saving", flush=True)
    sys.stdin.read()
    yield None
save_pages(pages(), Path(sys.argv[1]), Metadata())
"""


def test_what_a_killed_run_left_is_removed_and_what_a_live_one_writes_stays(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", UNFINISHED, str(tmp_path / "a.jpg")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    try:
        for process in running:
            assert process.stdout.readline() == b"saving\n"
        elsewhere = tmp_path / f".colorize-another-machine-{running[0].pid}-0.partial"
        elsewhere.touch()
        running[0].kill()
        running[0].communicate()
        assert len(list(tmp_path.iterdir())) == 3
        assert remove_leftovers([tmp_path, tmp_path / "absent"]) == 1
        (left,) = set(tmp_path.iterdir()) - {elsewhere}
        assert f"-{running[1].pid}-" in left.name
        assert elsewhere.exists()
    finally:
        for process in running:
            process.kill()
            process.communicate()
