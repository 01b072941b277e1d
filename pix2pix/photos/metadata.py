"""What a photograph says beside its pixels: resolution, EXIF, XMP, IPTC, captions of a PNG.

Orientation is reset, because results are upright; thumbnails are dropped, because they show the
photograph as it was; EXIF's color space becomes sRGB, because the result is.
"""

import base64
import re
import struct
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

ORIENTATION = 0x0112
XMP_OF_TIFF, IPTC_OF_TIFF = 700, 33723
_EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x8769, 0x8825, 0xA005
_COLOR_SPACE, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA001, 0xA002, 0xA003
_SRGB, _ADOBE_RGB, _UNCALIBRATED = 1, 2, 0xFFFF
_IPTC_RESOURCE = 0x0404  # of Photoshop's image resources, in a JPEG's APP13

METADATA_LEFT_OUT = "not all of its metadata fit into the format"

# Tags of the first directory that say how a file stores its pixels, or what its numbers mean, or
# that hold XMP, IPTC and what programs keep for themselves: the result's own tell these.
_OF_THE_FILE = frozenset(
    (
        *(ORIENTATION, XMP_OF_TIFF, IPTC_OF_TIFF, _INTEROP_IFD, _COLOR_SPACE),
        *(*range(254, 267), *range(273, 285), *range(288, 294), 296, 297, 301),
        *(*range(317, 326), 330, *range(332, 348), *range(512, 533)),
        *(34377, 34675, 37724, 50341),  # Photoshop's resources and layers, profile, printing
    )
)
_MAX_VALUE = 2**16  # bytes of a value; nobody writes longer captions
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_PER_INCH, _PER_CM = 2, 3

_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))\s*[2-8]\s*(?=["<])')
_XMP_THUMBNAILS = re.compile(rb"<xmp:Thumbnails>.*?</xmp:Thumbnails>", re.DOTALL)


@dataclass(frozen=True)
class Metadata:
    """What is kept of a photograph beside its pixels.

    Attributes:
        dpi: pixels per inch, across and down.
        exif: an EXIF block as it begins with a TIFF header, orientation and thumbnail taken out.
        xmp: an XMP packet.
        iptc: IPTC records (IIM).
        text: keywords and texts of a PNG; the comment of a JPEG as "comment".
    """

    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    text: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for another process."""
        blobs = {
            name: base64.b64encode(getattr(self, name)).decode() for name in ("exif", "xmp", "iptc")
        }
        return {"dpi": self.dpi, "text": self.text, **blobs}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Metadata":
        """Return what `to_json` wrote."""
        blobs = {name: base64.b64decode(content[name]) for name in ("exif", "xmp", "iptc")}
        dpi = tuple(content["dpi"]) if content["dpi"] else None
        return cls(dpi=dpi, text=dict(content["text"]), **blobs)

    def exif_of_size(self, width: int, height: int, with_dpi: bool = False) -> Image.Exif:
        """Return the EXIF of an upright result of this size, which says so."""
        exif = Image.Exif()
        if self.exif:
            exif.load(self.exif)
        for tag, value in exif.items():
            exif[tag] = _written(value)
        if with_dpi and self.dpi:
            exif[_X_RESOLUTION], exif[_Y_RESOLUTION] = self.dpi
            exif[_RESOLUTION_UNIT] = _PER_INCH
        if _EXIF_IFD in exif:
            fields = exif.get_ifd(_EXIF_IFD)
            if _PIXEL_WIDTH in fields:
                fields[_PIXEL_WIDTH], fields[_PIXEL_HEIGHT] = width, height
        return exif


def read_metadata(photo: Image.Image) -> Metadata:
    """Return the metadata of an opened picture of Pillow's; what is broken is left out."""
    return Metadata(
        dpi=_dpi(photo),
        exif=_exif(photo),
        xmp=_clean_xmp(_xmp(photo)),
        iptc=_iptc(photo),
        text=_text(photo),
    )


def orientation(photo: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 where it says nothing or nonsense."""
    try:
        value = photo.getexif().get(ORIENTATION)
    except Exception:  # a broken EXIF block says nothing about the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def is_marked_adobe_rgb(photo: Image.Image) -> bool:
    """Return True if EXIF names Adobe RGB (DCF 2.0: color space 2, or uncalibrated and "R03")."""
    try:
        exif = photo.getexif()
        if _EXIF_IFD not in exif:
            return False
        space = exif.get_ifd(_EXIF_IFD).get(_COLOR_SPACE)
        if space != _UNCALIBRATED:
            return bool(space == _ADOBE_RGB)
        return str(exif.get_ifd(_INTEROP_IFD).get(1)).startswith("R03")
    except Exception:
        return False


def _dpi(photo: Image.Image) -> tuple[float, float] | None:
    try:
        exif = photo.getexif()
        if photo.info.get("jfif_unit") not in (1, 2) and _X_RESOLUTION in exif:
            scale = 2.54 if exif.get(_RESOLUTION_UNIT) == _PER_CM else 1.0
            dpi = (exif[_X_RESOLUTION] * scale, exif[_Y_RESOLUTION] * scale)
        elif photo.format in ("JPEG", "MPO") and photo.info.get("jfif_unit") not in (1, 2):
            return None  # Pillow says 72 where the file says nothing
        else:
            dpi = photo.info["dpi"]
        across, down = (float(value) for value in dpi)
    except Exception:
        return None
    return (across, down) if 1 < across < 1e6 and 1 < down < 1e6 else None


def _exif(photo: Image.Image) -> bytes:
    try:
        source = photo.getexif()
        kept = Image.Exif()
        for tag, value in source.items():
            if tag not in (_EXIF_IFD, _GPS_IFD, *_OF_THE_FILE) and _is_short(value):
                kept[tag] = _written(value)
        for ifd in (_EXIF_IFD, _GPS_IFD):
            if ifd in source:
                kept.get_ifd(ifd).update(source.get_ifd(ifd))
        if _EXIF_IFD in source:
            fields = kept.get_ifd(_EXIF_IFD)
            fields.pop(_INTEROP_IFD, None)  # it names the color space once more
            if _COLOR_SPACE in fields:
                fields[_COLOR_SPACE] = _SRGB
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else b""
    except Exception:  # a broken EXIF block
        return b""


def _is_short(value: Any) -> bool:
    return len(value) <= _MAX_VALUE if isinstance(value, str | bytes | tuple) else True


def _written(value: Any) -> Any:
    """Return a text as its bytes, read as Latin-1: Pillow writes "?" for what is not ASCII."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("latin-1", "replace")
    return value


def _xmp(photo: Image.Image) -> bytes:
    packet = photo.info.get("xmp") or photo.info.get("XML:com.adobe.xmp") or b""
    tags = getattr(photo, "tag_v2", None)
    if not packet and tags is not None:
        packet = tags.get(XMP_OF_TIFF, b"")
    if isinstance(packet, str):
        packet = packet.encode()
    return packet if isinstance(packet, bytes) else b""


def _clean_xmp(packet: bytes) -> bytes:
    return _XMP_THUMBNAILS.sub(b"", _XMP_ORIENTATION.sub(rb"\g<1>1", packet)).rstrip(b"\0")


def _iptc(photo: Image.Image) -> bytes:
    resources = photo.info.get("photoshop")
    if isinstance(resources, dict) and isinstance(resources.get(_IPTC_RESOURCE), bytes):
        return resources[_IPTC_RESOURCE]
    tags = getattr(photo, "tag_v2", None)
    value = tags.get(IPTC_OF_TIFF, b"") if tags is not None else b""
    if isinstance(value, tuple):  # declared as 4-byte numbers, as Photoshop does
        value = struct.pack(f"{tags._endian}{len(value)}I", *value)  # type: ignore[union-attr]
    return value if isinstance(value, bytes) else b""


def _text(photo: Image.Image) -> dict[str, str]:
    comment = photo.info.get("comment")
    if isinstance(comment, bytes) and photo.format == "JPEG":
        return {"comment": comment.decode("utf-8", "replace")}
    texts = getattr(photo, "text", {}) if photo.format == "PNG" else {}
    return {str(name): str(text) for name, text in texts.items() if name != "XML:com.adobe.xmp"}


def jpeg_segment_of_iptc(iptc: bytes) -> bytes:
    """Return the APP13 segment that holds IPTC records; nothing where they are too long for one."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc
    body = b"Photoshop 3.0\0" + resource + bytes(len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body if len(body) < 65534 else b""
