"""Pictures that are decoded in a process of their own, which is started again after a crash."""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pix2pix.photos.metadata import Metadata
from pix2pix.photos.photo_error import PhotoError
from pix2pix.photos.picture import Page

_PROGRAM = "pix2pix.photos.helper_process"
_HEAD_BYTES = 9  # of a frame: a letter and a length
_MAX_ANSWER = 2**26  # bytes of JSON; metadata are some kilobytes
# A decoder that failed may have left something behind (imagecodecs loses references): a helper ends
# after so many failures, long before that matters, and a new one takes its place in 0.2 s.
_MOST_FAILURES = 100
_TIMERS = (signal.SIGPROF, signal.SIGALRM)

_idle: list["Helper"] = []


class HelperPicture:
    """An opened file in a helper; it has one to itself until it is closed."""

    def __init__(self, source: Path | bytes, kind: str, max_pixels: int) -> None:
        self._helper: Helper | None = _idle.pop() if _idle else Helper()
        request: dict[str, Any] = {"do": "open", "kind": kind, "max_pixels": max_pixels, "path": ""}
        self.notes: list[str] = []
        if isinstance(source, bytes):
            answer = self._ask({**request, "size": len(source)}, source)
        else:
            answer = self._ask({**request, "path": os.fsencode(source.absolute()).hex()})
        self.num_pages = int(answer["num_pages"])
        self.num_pixels = int(answer["pixels"])
        self._pages: dict[int, Page] = {}

    @cached_property
    def metadata(self) -> Metadata:
        """What the file says beside its pixels."""
        return Metadata.from_json(self._ask({"do": "metadata"})["metadata"])

    def page(self, index: int) -> Page:
        """Return its size; may decode it."""
        if index not in self._pages:
            self._pages[index] = Page(**self._ask({"do": "page", "index": index})["page"])
        return self._pages[index]

    def rows(self, index: int) -> Iterator[np.ndarray]:
        """Yield the rows as the helper sends them."""
        page = self.page(index)
        shape = (-1, page.width) if page.channels == 1 else (-1, page.width, 3)
        dtype = np.dtype(np.uint8 if page.bits == 8 else np.uint16)
        helper = self._running()
        helper.send({"do": "rows", "index": index})
        try:
            for data in helper.rows():
                yield np.frombuffer(data, dtype).reshape(shape)
            self._take(helper.answer())
        except PhotoError:
            self._give_up_if_dead()
            raise
        except BaseException:  # or the reader left early
            self._abandon()
            raise

    def close(self) -> None:
        """Forget the file, and give the helper back."""
        helper, self._helper = self._helper, None
        if helper is None:
            return
        try:
            helper.send({"do": "close"})
            helper.answer()
        except PhotoError:
            helper.stop()
            return
        if helper.num_failures < _MOST_FAILURES:
            _idle.append(helper)
        else:
            helper.stop()

    def _ask(self, request: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
        helper = self._running()
        try:
            helper.send(request, data)
            return self._take(helper.answer())
        except PhotoError:
            self._give_up_if_dead()
            if request["do"] == "open":
                self.close()
            raise
        except BaseException:  # an interrupt: what comes next would be the wrong answer
            self._abandon()
            raise

    def _take(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "reason" in answer:
            self._running().num_failures += 1
            raise PhotoError(str(answer["reason"]), str(answer["message"]))
        self.notes[:] = [str(note) for note in answer["notes"]]
        return answer

    def _running(self) -> "Helper":
        if self._helper is None:
            raise PhotoError("undecodable", "the file was closed, or its decoder ended")
        return self._helper

    def _abandon(self) -> None:
        if self._helper is not None:
            self._helper.stop()
            self._helper = None

    def _give_up_if_dead(self) -> None:
        if self._helper is not None and not self._helper.is_alive():
            self._helper = None


class Helper:
    """A process that decodes, one file at a time; `num_failures` of them it could not."""

    def __init__(self) -> None:
        # It finds the modules that this process finds; its libraries need no threads, each of
        # which would take a share of the addresses that it may use.
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                "MALLOC_ARENA_MAX": "1",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._head = b""
        self.num_failures = 0

    def send(self, request: dict[str, Any], data: bytes = b"") -> None:
        """Ask; raises PhotoError if the helper has ended."""
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.write(data)
            self._requests.flush()
        except OSError:
            raise self._ended() from None

    def rows(self) -> Iterator[bytes]:
        """Yield what comes before the answer."""
        while (head := self._read(_HEAD_BYTES))[:1] == b"R":
            yield self._read(int.from_bytes(head[1:], "big"))
        self._head = head

    def answer(self) -> dict[str, Any]:
        """Return the next answer; raises PhotoError if the helper has ended."""
        head, self._head = self._head or self._read(_HEAD_BYTES), b""
        size = int.from_bytes(head[1:], "big")
        if head[:1] != b"J" or size > _MAX_ANSWER:
            self.stop()
            raise PhotoError("crashed", "its decoder gave no sensible answer")
        answer: dict[str, Any] = json.loads(self._read(size))
        return answer

    def is_alive(self) -> bool:
        """Return True while it can be asked."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._answers.close()

    def _read(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) < size:
            raise self._ended()
        return data

    def _ended(self) -> PhotoError:
        status = self._process.wait()
        self._answers.close()
        if -status in _TIMERS:
            return PhotoError("too_slow", "decoding takes too long; the file is damaged or hostile")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return PhotoError("crashed", f"its decoder crashed ({how}); the file is damaged or hostile")


def stop_helpers() -> None:
    """End the helpers that nobody uses."""
    while _idle:
        _idle.pop().stop()


atexit.register(stop_helpers)
os.register_at_fork(after_in_child=_idle.clear)  # a helper answers the one who started it
