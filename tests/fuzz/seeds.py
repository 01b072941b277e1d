"""Small whole files of every format, for a fuzzer to damage."""

import io
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from pix2pix.photos.png_chunks import chunk, insert_chunks
from tests.photos.odd_files import by_pillow, cmyk_profile, gray_profile, ramps, tiff

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY = gray_profile(np.linspace(0, 1, 256) ** 2.2)


def _pillow(kind: str, channels: int = 3, **options: Any) -> bytes:
    return by_pillow(ramps(48, 64, channels), kind, 6, **options)


def _jpegs() -> list[bytes]:
    inks = by_pillow(ramps(48, 64, 4), "JPEG", 3, cmyk_profile(), mode="CMYK")
    whole = _pillow("JPEG", profile=SRGB, xmp=b"<x/>", comment="text", dpi=(300, 300))
    return [whole, _pillow("JPEG", progressive=True), _pillow("JPEG", 1, profile=GRAY), inks]


def _pngs() -> list[bytes]:
    deep = bytes(imagecodecs.png_encode(ramps(48, 64, 3, 16)))
    palette = io.BytesIO()
    Image.fromarray(ramps(48, 64, 3)).quantize(64).save(palette, "PNG", transparency=3)
    return [
        _pillow("PNG", profile=SRGB, dpi=(300, 300)),
        insert_chunks(deep, chunk(b"cICP", bytes([12, 13, 0, 1]))),
        _pillow("PNG", 4),
        palette.getvalue(),
    ]


def _tiffs() -> list[bytes]:
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        writer.write(ramps(12, 16), subfiletype=1)
        for _ in range(2):
            writer.write(ramps(48, 64, 1, 16), compression="lzw", predictor=True)
    floats = (ramps(48, 64, 3, 16) / 65535).astype(np.float32)
    return [
        tiff(ramps(48, 64, 3, 16), 6, SRGB, tile=(16, 32), compression="zlib"),
        tiff(ramps(48, 64), 3, GRAY, byteorder=">", compression="packbits"),
        tiff(floats, compression="lzw", predictor=True),
        pages.getvalue(),
        by_pillow(ramps(48, 64, 3), "TIFF", compression="jpeg"),
        by_pillow(ramps(48, 64, 4), "TIFF", mode="CMYK", profile=cmyk_profile()),
    ]


def _heifs() -> list[bytes]:
    from pillow_heif import HeifFile, register_heif_opener

    register_heif_opener()
    samples, deep = ramps(48, 64, 3, 16), io.BytesIO()
    file = HeifFile()
    file.add_frombytes("RGB;16", samples.shape[1::-1], samples.tobytes())
    file.save(deep, color_primaries=12)
    return [_pillow("HEIF", profile=SRGB), deep.getvalue()]


def _avifs() -> list[bytes]:
    samples = ramps(48, 64, 3, 16) >> 6
    deep = imagecodecs.avif_encode(samples, bitspersample=10, primaries=9, transfer=13)
    return [_pillow("AVIF", profile=SRGB), _pillow("AVIF", 4), bytes(deep)]


def _netpbms() -> list[bytes]:
    deep = ramps(48, 64, 3, 16).astype(">u2").tobytes()
    numbers = " ".join(map(str, ramps(12, 16, 1, 16).ravel())).encode()
    return [
        _pillow("PPM"),
        _pillow("PPM", 1),
        b"P6 64 48 65535\n" + deep,
        b"P7\nWIDTH 64\nHEIGHT 48\nDEPTH 3\nMAXVAL 65535\nENDHDR\n" + deep,
        b"P2 16 12 65535\n" + numbers,
    ]


def _jpeg2000s() -> list[bytes]:
    plain = _pillow("JPEG2000")
    deep = imagecodecs.jpeg2k_encode(ramps(48, 64, 3, 16), reversible=True)
    return [plain, bytes(deep)]


def _jpeg_xls() -> list[bytes]:
    shallow = imagecodecs.jpegxl_encode(ramps(48, 64, 3))
    deep = imagecodecs.jpegxl_encode(ramps(48, 64, 1, 16), lossless=True)
    wrapped = imagecodecs.jpegxl_encode_jpeg(_pillow("JPEG", 1, profile=GRAY))
    return [bytes(shallow), bytes(deep), bytes(wrapped)]


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "JPEG": _jpegs,
    "PNG": _pngs,
    "WEBP": lambda: [_pillow("WEBP", profile=SRGB), _pillow("WEBP", 4, lossless=True)],
    "TIFF": _tiffs,
    "BMP": lambda: [_pillow("BMP"), _pillow("BMP", 1)],
    "GIF": lambda: [_pillow("GIF")],
    "PPM": _netpbms,
    "JPEG2000": _jpeg2000s,
    "AVIF": _avifs,
    "HEIF": _heifs,
    "JXL": _jpeg_xls,
}


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bytes, cut, swap fields, or put extreme numbers in; mostly near the head."""
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        how = rng.integers(0, 6)
        reach = len(damaged) if rng.random() < 0.5 else min(len(damaged), 256)
        at, other = (int(place) for place in rng.integers(0, max(1, reach - 8), 2))
        size = int(rng.choice([1, 2, 4]))
        if how <= 1:
            for place in rng.integers(0, reach, int(rng.integers(1, 12))):
                damaged[place] ^= int(rng.integers(1, 256))
        elif how == 2:
            del damaged[int(rng.integers(8, len(damaged))) :]
        elif how == 3:
            field = damaged[at : at + size]
            damaged[at : at + size] = damaged[other : other + size]
            damaged[other : other + size] = field
        elif how == 4:
            extreme = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff"]
            damaged[at : at + size] = extreme[int(rng.integers(4))][:size]
        else:
            damaged[at:at] = damaged[other : other + int(rng.integers(1, 64))]
        if len(damaged) < 16:
            break
    return bytes(damaged)
