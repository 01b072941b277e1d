"""Netpbm's PGM, PPM and PAM of any depth: rows are read as they lie in the file.

Pillow reads the usual ones of 8 bits. Others it takes sample by sample in Python, three channels at
8 bits whatever they had, and PAM not at all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pix2pix.photos.eight_bits import decoder_errors
from pix2pix.photos.metadata import Metadata
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import READ_AS_8_BITS, STRIP_PIXELS, Page, check_size
from pix2pix.photos.rows import Encoding, decode_rows

_MOST_HEAD_BYTES = 2**16  # comments may be long
_SPACE = rb"(?:\s|#[^\n\r]*[\n\r])+"
_NUMBERS = re.compile(rb"P([2356])" + 3 * (_SPACE + rb"(\d{1,10})") + rb"(?:#[^\n\r]*)?\s")
_PAM = re.compile(rb"P7\n(.*?)ENDHDR\n", re.DOTALL)
_PAM_FIELD = re.compile(rb"^(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,10})\s*$", re.MULTILINE)
_PLAIN = {b"2": 1, b"3": 3}  # samples in decimal numbers
_RAW = {b"5": 1, b"6": 3}
_COMMENT = re.compile(rb"#[^\n\r]*")


@dataclass(frozen=True)
class Header:
    """What a file says of its samples, which begin at byte `start`.

    white: the sample that is full. is_plain: they are decimal numbers. is_pam: of the newest kind.
    """

    width: int
    height: int
    num_samples: int
    white: int
    start: int
    is_plain: bool = False
    is_pam: bool = False

    @property
    def is_usual(self) -> bool:
        """Return True where Pillow reads all that is there."""
        is_shallow = self.white == 255 or (self.is_plain and self.white < 255)
        return is_shallow and not self.is_pam


def read_header(data: bytes) -> Header | None:
    """Return the header; None for a bitmap, and where there is none that can be read."""
    head = data[:_MOST_HEAD_BYTES]
    pam = _PAM.match(head)
    if pam:
        fields = {name: int(value) for name, value in _PAM_FIELD.findall(pam[1])}
        if len(fields) < 4:
            return None
        size = fields[b"WIDTH"], fields[b"HEIGHT"]
        return Header(*size, fields[b"DEPTH"], fields[b"MAXVAL"], pam.end(), is_pam=True)
    found = _NUMBERS.match(head)
    if not found:
        return None
    kind, *numbers = found.groups()
    width, height, white = map(int, numbers)
    channels = {**_PLAIN, **_RAW}[kind]
    return Header(width, height, channels, white, found.end(), kind in _PLAIN)


class NetpbmPicture:
    """An opened file; its rows are decoded a strip at a time, decimal numbers all at once."""

    num_pages = 1

    def __init__(self, data: bytes, header: Header, max_pixels: int, is_deep: bool) -> None:
        self.notes: list[str] = []
        self.metadata = Metadata()
        self._data, self._header = data, header
        check_size(header.width, header.height, max_pixels)
        self.num_pixels = header.width * header.height
        if not 0 < header.white < 2**16 or not 0 < header.num_samples <= 4:
            message = f"{header.num_samples} channels up to {header.white}: of a kind not read"
            raise PhotoError("unsupported", message)
        is_shallow = header.white < 2**8
        if not is_shallow and not is_deep:
            self.notes.append(READ_AS_8_BITS)
        self._encoding = Encoding(
            white=header.white,
            num_colors=1 if header.num_samples < 3 else 3,
            alpha="straight" if header.num_samples in (2, 4) else "",
            bits=16 if is_deep and not is_shallow else 8,
        )

    def page(self, index: int) -> Page:
        """Return its size."""
        encoding = self._encoding
        return Page(self._header.width, self._header.height, encoding.channels, encoding.bits)

    def rows(self, index: int) -> Iterator[np.ndarray]:
        """Yield it in strips."""
        with decoder_errors():
            samples = self._samples()
        height = max(1, STRIP_PIXELS // self._header.width)
        for top in range(0, len(samples), height):
            native = samples[top : top + height]
            yield decode_rows(native.astype(native.dtype.newbyteorder("=")), self._encoding)

    def close(self) -> None:
        """Forget the file's bytes."""
        self._data = b""

    def _samples(self) -> np.ndarray:
        header = self._header
        shape = (header.height, header.width, header.num_samples)
        count = self.num_pixels * header.num_samples
        if header.is_plain:
            body = self._data[header.start :]
            text = _COMMENT.sub(b" ", body) if b"#" in body else body
            samples = np.fromstring(text, np.uint32, count=-1, sep=" ")[:count]
            if samples.max(initial=0) > header.white:
                raise PhotoError("undecodable", f"a sample is larger than {header.white}")
        else:
            dtype = np.dtype(np.uint8 if header.white < 2**8 else ">u2")
            there = (len(self._data) - header.start) // dtype.itemsize
            samples = np.frombuffer(self._data, dtype, min(count, there), header.start)
        if len(samples) < count:
            rows = len(samples) // (header.width * header.num_samples)
            raise PhotoError("truncated", f"only {rows:,} of {header.height:,} rows are there")
        return samples.reshape(shape)
