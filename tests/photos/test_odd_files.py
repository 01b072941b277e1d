"""Files as people bring them: scans of several pages, cameras' raw files, JPEGs without an end."""

import io
import os
import signal
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2pix.photos import kinds, opening
from pix2pix.photos.eight_bits import PillowPicture
from pix2pix.photos.helper import HelperPicture
from pix2pix.photos.icc import rgb_profile
from pix2pix.photos.photo import PhotoError, as_photo, open_photo, open_picture, open_reduced
from pix2pix.photos.picture import (
    MAX_PIXELS,
    PREVIEWS_LEFT,
    PROFILE_IGNORED,
    READ_AS_8_BITS,
    ROWS_MISSING,
    read_upright,
)
from pix2pix.photos.png_chunks import chunk, insert_chunks
from tests.photographs import colorful, encoded
from tests.photos.odd_files import (
    ADOBE,
    CURVES,
    by_pillow,
    gray_profile,
    ramps,
    rgb_as_seen,
    tiff,
)


def pages_of(data: bytes | Path) -> tuple[list[np.ndarray], list[str]]:
    picture = open_picture(data, MAX_PIXELS)
    try:
        return [read_upright(picture, i) for i in range(picture.num_pages)], picture.notes
    finally:
        picture.close()


def reason(data: bytes | Path, **options: Any) -> str:
    with pytest.raises(PhotoError) as caught:
        open_photo(data, **options)
    return caught.value.reason


def written(*pages: tuple[np.ndarray, dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for samples, options in pages:
            writer.write(samples, metadata=None, **options)
    return file.getvalue()


def test_a_linear_gray_scan_keeps_its_light() -> None:
    seen = np.linspace(60, 175, 300 * 400).reshape(300, 400)
    light = np.rint(255 * (seen / 255) ** 2.2).astype(np.uint8)
    data = tiff(light, profile=gray_profile(CURVES["linear"]))
    assert np.asarray(open_photo(data)).mean() == pytest.approx(seen.mean(), abs=1.5)
    reduced, _ = open_reduced(data, 100)
    assert np.asarray(reduced).mean() == pytest.approx(seen.mean(), abs=1.5)


def test_a_profile_is_applied_in_preparation_as_in_coloring() -> None:
    stored = ramps(480, 640, 3)
    data = by_pillow(
        stored, "JPEG", profile=rgb_profile(ADOBE, 563 / 256), quality=95, subsampling=0
    )
    notes: list[str] = []
    whole, (reduced, _) = np.asarray(open_photo(data)), open_reduced(data, 100, notes)
    expected = rgb_as_seen(stored / 255, ADOBE, 563 / 256) * 255
    assert np.abs(whole - expected).mean() < 2
    shrunk = Image.fromarray(whole).resize(reduced.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk).astype(int) - np.asarray(reduced)).mean() < 3
    assert notes == []


@pytest.mark.parametrize(("space", "interoperability"), [(2, None), (0xFFFF, "R03")])
def test_the_mark_of_adobe_rgb_in_exif_counts(space: int, interoperability: str | None) -> None:
    stored = ramps(channels=3)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    if interoperability:
        exif.get_ifd(0x8769)[0xA005] = {1: interoperability}
    data = encoded(Image.fromarray(stored), "JPEG", exif=exif, quality=97, subsampling=0)
    expected = rgb_as_seen(imagecodecs.jpeg8_decode(data) / 255, ADOBE, 563 / 256) * 255
    assert np.abs(np.asarray(open_photo(data)) - expected).mean() < 2


def test_a_broken_profile_is_counted_in_preparation() -> None:
    data = encoded(colorful(), icc_profile=b"no profile")
    notes: list[str] = []
    open_reduced(data, 60, notes)
    assert notes == [PROFILE_IGNORED]


@pytest.mark.parametrize("depth", [8, 16])
def test_the_gamma_of_a_png_counts(depth: int) -> None:
    data = bytes(imagecodecs.png_encode(ramps(channels=3, depth=depth)))
    linear = insert_chunks(data, chunk(b"gAMA", struct.pack(">I", 100_000)))
    usual = insert_chunks(data, chunk(b"gAMA", struct.pack(">I", 45_455)))
    as_light = np.asarray(open_photo(linear)).astype(int)
    assert np.array_equal(open_photo(usual), open_photo(data))
    darker = np.asarray(open_photo(data)).astype(int)
    assert as_light[20, 20].min() > darker[20, 20].min() + 20


def test_what_comes_out_says_nothing_that_no_longer_holds() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(colorful(), exif=exif, icc_profile=rgb_profile(ADOBE, 2.2))
    opened = open_photo(data)
    assert "icc_profile" not in opened.info
    assert np.array_equal(as_photo(opened), opened)
    again = io.BytesIO()
    opened.save(again, "PNG")
    assert np.array_equal(open_photo(again.getvalue()), opened)


def test_pictures_that_pillow_opened_are_taken_as_their_files() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (
        encoded(colorful(), exif=exif),
        encoded(colorful().quantize(64), "PNG"),
        encoded(Image.fromarray(ramps(depth=16)), "PNG"),
        encoded(colorful(), icc_profile=rgb_profile(ADOBE, 2.2)),
    ):
        expected = np.asarray(open_photo(data)).astype(int)
        taken = np.asarray(as_photo(Image.open(io.BytesIO(data)))).astype(int)
        assert np.abs(taken - expected).max() <= 1
    with pytest.raises(TypeError, match="colorize_array"):
        as_photo(ramps())  # type: ignore[arg-type]


def test_all_pages_of_like_size_are_opened_and_previews_are_left() -> None:
    scans = [ramps(60, 80, 1, 16), ramps(62, 78, 1, 16)[::-1], ramps(80, 60, 1, 16)]
    preview = ramps(12, 16)
    data = written(
        (preview, {"subfiletype": 1}),
        *((scan, {"compression": "lzw"}) for scan in scans),
        (ramps(30, 40), {}),
    )
    pages, notes = pages_of(data)
    assert len(pages) == 3
    assert all(np.array_equal(page, scan) for page, scan in zip(pages, scans, strict=True))
    assert notes == [f"{PREVIEWS_LEFT}: 1"]
    assert np.asarray(open_photo(data)).shape == (60, 80)


def test_the_picture_of_a_sub_directory_is_found() -> None:
    scan = ramps(60, 80, 1, 16)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(ramps(12, 16, 3), subfiletype=1, subifds=1, metadata=None)
        writer.write(scan, metadata=None)
    pages, _ = pages_of(file.getvalue())
    assert np.array_equal(pages[0], scan)


@pytest.mark.parametrize("white", [1.0, 65535.0])
def test_floats_of_several_strips_have_one_white(white: float) -> None:
    scan = ramps(60, 80, 3, 16)
    data = tiff((scan / 65535 * white).astype(np.float32), rowsperstrip=7)
    pages, _ = pages_of(data)
    assert np.abs(pages[0].astype(int) - scan).max() <= 1


def test_12_bits_are_scaled_by_their_depth() -> None:
    scan = ramps(60, 80, 1, 16)
    pages, _ = pages_of(tiff(scan >> 4, bitspersample=12))
    assert np.abs(pages[0].astype(int) - scan).max() <= 16


@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
def test_transparency_of_16_bits_lies_on_white(alpha: str) -> None:
    half = np.full((20, 30), 32768, np.uint16)
    red = np.full((20, 30), 65535 if alpha == "unassalpha" else 32768, np.uint16)
    samples = np.dstack([red, 0 * red, 0 * red, half])
    pages, _ = pages_of(tiff(samples, extrasamples=[alpha]))
    assert pages[0][5, 5].tolist() == pytest.approx([65535, 32767, 32767], abs=2)


def test_a_tiff_that_is_cut_short_is_refused_whole() -> None:
    data = tiff(ramps(300, 400, 1, 16), rowsperstrip=10)
    assert reason(data[: len(data) // 2]) in ("truncated", "undecodable")


RAW = [
    ("a.dng", b"II*\0" + bytes(60), "raw_file"),
    ("a.CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "raw_file"),
    ("a.mp4", b"\0\0\0\x18ftypmp42" + bytes(60), "video"),
    ("a.pdf", b"%PDF-1.7" + bytes(60), "document"),
]


@pytest.mark.parametrize(("name", "data", "expected"), RAW)
def test_what_has_to_be_prepared_first_says_how(
    tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PhotoError, match="first") as caught:
        open_photo(tmp_path / name)
    assert caught.value.reason == expected
    if not data.startswith(b"II*\0\0"):  # by its bytes, too, whatever its name
        assert reason(data) == expected


def test_a_raw_file_by_another_name_is_no_photograph() -> None:
    dng = written(
        (ramps(12, 16, 3), {"subfiletype": 1, "extratags": [(50706, 1, 4, b"\1\4\0\0", True)]})
    )
    assert reason(dng) == "raw_file"
    sensor = written((ramps(60, 80, 1, 16), {"photometric": 32803, "extratags": [
        (33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]}))  # fmt: skip
    assert reason(sensor) == "raw_file"


JPEG = encoded(colorful(640, 480), quality=90)
PROGRESSIVE = encoded(colorful(640, 480), quality=90, progressive=True)


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE])
def test_a_jpeg_without_its_end_mark_is_whole(data: bytes) -> None:
    assert np.array_equal(open_photo(data[:-2]), open_photo(data))
    assert np.array_equal(open_reduced(data[:-2], 100)[0], open_reduced(data, 100)[0])


@pytest.mark.parametrize("share", [0.6, 0.9, 0.99])
def test_a_jpeg_without_its_last_bytes_says_how_many_rows_are_missing(share: float) -> None:
    data = JPEG[: int(share * len(JPEG))]
    pages, notes = pages_of(data)
    (note,) = notes
    assert note.startswith(ROWS_MISSING)
    missing = int(note.split("about ")[1].split(" ")[0])
    there = 480 - missing - 16
    assert np.array_equal(pages[0][:there], np.asarray(open_photo(JPEG))[:there])
    assert 0 < missing < 240
    assert reason(data) == "truncated"
    with pytest.raises(PhotoError, match="rows are missing"):
        open_reduced(data, 100)


def test_less_than_half_a_jpeg_is_refused() -> None:
    with pytest.raises(PhotoError, match="cut short"):
        pages_of(JPEG[: int(0.3 * len(JPEG))])


def jp2_with(boxes: bytes, data: bytes) -> bytes:
    """A JPEG 2000 with boxes between its header and its codestream."""
    at = data.index(b"jp2c") - 4
    return data[:at] + boxes + data[at:]


@pytest.mark.parametrize("depth", [8, 16])
def test_the_profile_of_a_jpeg_2000_is_applied(depth: int) -> None:
    samples = ramps(48, 64, 3, depth)
    data = bytes(imagecodecs.jpeg2k_encode(samples, reversible=True))
    profile = b"\2\0\0" + rgb_profile(ADOBE, 563 / 256)
    old = data.index(b"colr") - 4
    (size,) = struct.unpack_from(">I", data, old)
    box = struct.pack(">I", len(profile) + 8) + b"colr" + profile
    head = data.index(b"jp2h") - 4
    (head_size,) = struct.unpack_from(">I", data, head)
    grown = struct.pack(">I", head_size + len(box) - size)
    data = data[:head] + grown + data[head + 4 : old] + box + data[old + size :]
    pages, notes = pages_of(data)
    white = np.iinfo(samples.dtype).max
    expected = rgb_as_seen(samples / white, ADOBE, 563 / 256)
    assert np.abs(pages[0] / white - expected).max() < 2 / 255
    assert notes == []


def test_xmp_and_exif_of_a_jpeg_2000_are_read() -> None:
    data = bytes(imagecodecs.jpeg2k_encode(ramps(48, 64, 3, 16), reversible=True))
    exif = Image.Exif()
    exif[270] = "Grandmother"
    uuids = (b"JpgTiffExif->JP2" + exif.tobytes()[6:], bytes.fromhex(
        "be7acfcb97a942e89c71999491e3afac") + b"<x/>")  # fmt: skip
    told = b"".join(struct.pack(">I", len(uuid) + 8) + b"uuid" + uuid for uuid in uuids)
    picture = open_picture(jp2_with(told, data), MAX_PIXELS)
    metadata = picture.metadata
    picture.close()
    assert metadata.xmp == b"<x/>"
    assert metadata.exif_of_size(64, 48)[270] == "Grandmother"


@pytest.mark.parametrize(
    ("package", "data", "extra"),
    [
        ("pillow_heif", b"\0\0\0\x18ftypheic" + bytes(60), "heif"),
        ("imagecodecs", b"\xff\x0a" + bytes(60), "formats"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, data: bytes, extra: str
) -> None:
    monkeypatch.setattr(kinds, "_is_installed", lambda name: name != package)
    with pytest.raises(PhotoError, match=rf"pip install -e '\.\[{extra}\]'") as caught:
        open_photo(data)
    assert caught.value.reason == "needs_extra"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_without_the_extra_16_bits_are_read_as_8_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(opening, "has_deep_formats", lambda: False)
    scan = ramps(48, 64, 1, 16)
    data = encoded(Image.fromarray(scan), kind)
    picture = opening.open_here(data, kind, MAX_PIXELS)
    pixels = read_upright(picture, 0)
    assert np.abs(pixels - scan / 257).max() <= 1
    assert picture.notes == [READ_AS_8_BITS]


def test_a_crash_of_the_decoder_is_named_and_the_next_file_opens() -> None:
    data = tiff(ramps(60, 80, 1, 16))
    for sent, expected in ((signal.SIGSEGV, "crashed"), (signal.SIGPROF, "too_slow")):
        picture = open_picture(data, MAX_PIXELS)
        assert isinstance(picture, HelperPicture)
        assert picture._helper is not None
        os.kill(picture._helper._process.pid, sent)  # as the kernel would
        with pytest.raises(PhotoError) as caught:
            read_upright(picture, 0)
        assert caught.value.reason == expected
        picture.close()
        assert np.asarray(open_photo(data)).shape == (60, 80)


def test_a_picture_that_claims_more_memory_than_it_may_have_is_refused() -> None:
    # 121 million pixels of nothing in some kilobytes, whose decoder wants 4 bytes for each sample.
    rows = imagecodecs.jpeg2k_encode(np.zeros((64, 64), np.uint8))
    data = bytearray(rows)
    at = data.index(b"\xff\x51") + 6
    struct.pack_into(">II", data, at, 11_000, 11_000)  # size, and of a tile
    struct.pack_into(">II", data, at + 16, 11_000, 11_000)
    head = data.index(b"ihdr") + 4
    struct.pack_into(">II", data, head, 11_000, 11_000)
    assert reason(bytes(data)) in ("undecodable", "truncated", "out_of_memory", "crashed")
    assert reason(bytes(data), max_pixels=10**6) == "too_many_pixels"


def test_larger_photographs_open_where_that_is_asked_for() -> None:
    data = encoded(Image.new("L", (15_000, 12_500)), "PNG")
    assert reason(data) == "too_many_pixels"
    picture = open_picture(data, 2 * 10**8)
    assert isinstance(picture, PillowPicture)
    assert picture.num_pixels == 187_500_000
