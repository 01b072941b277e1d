"""The process that decodes TIFF, JPEG 2000, AVIF, HEIC, JPEG XL and 16-bit PNG.

`helper.py` starts and asks it.

Their decoders are large native libraries: what crashes, hangs or eats memory here takes nobody
along. It answers on its standard output, in frames: a letter and a length, then JSON ("J") or rows
of pixels ("R"). It ends when its standard input does.
"""

import dataclasses
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import AvifImagePlugin

from pix2pix.photos.eight_bits import decoder_errors
from pix2pix.photos.opening import open_here
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import Picture

FRAME = struct.Struct(">cQ")

# What decoding a file may take: processor seconds, and bytes beyond what the bare process has.
# JPEG 2000 needs 4 bytes per sample twice; on a slow core a megapixel takes some 0.1 s of it.
_SECONDS, _SECONDS_PER_BYTE, _SECONDS_PER_PIXEL = 6.0, 2e-6, 1e-7
_BYTES, _BYTES_PER_BYTE, _BYTES_PER_PIXEL = 400 * 2**20, 2, 26
_WAITING = 20  # times as long by the clock: the machine may be busy


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    serve(sys.stdin.buffer, answers)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Read requests, a line of JSON each, and write the frames of the answer to each."""
    picture: Picture | None = None
    file_size = 0
    for line in requests:
        request = json.loads(line)
        try:
            with decoder_errors():
                if request["do"] == "open":
                    source = _source(request, requests)
                    picture, file_size = None, _size(source)  # first: the memory of the one before
                    with _limits(file_size, 0):
                        picture = open_here(source, request["kind"], request["max_pixels"])
                        answer = {"num_pages": picture.num_pages, "pixels": picture.num_pixels}
                elif request["do"] == "close" or picture is None:
                    picture, answer = None, {}
                else:
                    with _limits(file_size, picture.num_pixels):
                        answer = _answer(picture, request, answers)
            _send(answers, {**answer, "notes": picture.notes if picture else []})
        except PhotoError as error:
            _send(answers, {"reason": error.reason, "message": str(error)})


def _source(request: dict[str, Any], requests: BinaryIO) -> Path | bytes:
    """Return the file, or the bytes that follow the request."""
    if "size" in request:
        return requests.read(request["size"])
    return Path(os.fsdecode(bytes.fromhex(request["path"])))


def _answer(picture: Picture, request: dict[str, Any], answers: BinaryIO) -> dict[str, Any]:
    if request["do"] == "metadata":
        return {"metadata": picture.metadata.to_json()}
    if request["do"] == "page":
        return {"page": dataclasses.asdict(picture.page(request["index"]))}
    assert request["do"] == "rows"
    for rows in picture.rows(request["index"]):
        data = rows.tobytes()
        answers.write(FRAME.pack(b"R", len(data)))
        _write(answers, data)
    return {}


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    _write(answers, FRAME.pack(b"J", len(data)) + data)


def _write(answers: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:  # a raw pipe takes what it can
        view = view[answers.write(view) :]


def _size(source: Path | bytes) -> int:
    try:
        return len(source) if isinstance(source, bytes) else source.stat().st_size
    except OSError:
        return 0  # opening it will say why


@contextmanager
def _limits(num_bytes: int, num_pixels: int) -> Iterator[None]:
    """Let the kernel end this process when decoding takes longer, or allocations fail."""
    seconds = _SECONDS + _SECONDS_PER_BYTE * num_bytes + _SECONDS_PER_PIXEL * num_pixels
    more = _BYTES + _BYTES_PER_BYTE * num_bytes + _BYTES_PER_PIXEL * num_pixels
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_BARE_BYTES + more, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _WAITING * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))


def _address_space() -> int:
    """Bytes of addresses that this process has taken."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux
        return 2**31


_BARE_BYTES = _address_space()

if __name__ == "__main__":
    main()
