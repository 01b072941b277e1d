"""A real HTTP server on loopback that misbehaves as a test asks it to, one fault per request."""

import socketserver
import threading
from collections import deque
from collections.abc import Callable
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self


class Asked(NamedTuple):
    """A request as it came."""

    path: str
    start: int  # of the range; 0 where none was asked for
    is_head: bool = False  # the headers alone


class OnLoopback(socketserver.ThreadingTCPServer):
    """A server on a free port of loopback, while its context lasts; then `closing` is set."""

    daemon_threads = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class LoopbackServer(OnLoopback, ThreadingHTTPServer):
    """One that speaks HTTP."""


class WebServer(LoopbackServer):
    """Serves `files` by path, with ranges and tags; each request takes the next of `faults`."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.files: dict[str, bytes] = {}
        self.faults: deque[Fault] = deque()
        self.asked: list[Asked] = []
        self.sends_tags = True


def tag_of(data: bytes) -> str:
    """A strong ETag."""
    return f'"{md5(data).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        self.server.asked.append(Asked(self.path, self.range_start(), self.command == "HEAD"))
        fault = self.server.faults.popleft() if self.server.faults else well
        data = self.server.files.get(self.path)
        try:
            if data is None:
                self.send_error(404)
            else:
                fault(self, data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a probe leaves the body unread

    do_HEAD = do_GET

    def range_start(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def answer(
        self,
        data: bytes,
        *,
        ranges: bool = True,
        always_ranges: bool = False,
        length: int | None = None,
        cut: int | None = None,
    ) -> None:
        """Status, headers and body, as a good server would but for what the arguments change.

        always_ranges: also of another version than was asked for. length: announced for the whole
        file. cut: bytes of body after which there are no more.
        """
        tag = tag_of(data)
        total = len(data) if length is None else length
        start = self.range_start() if ranges and "Range" in self.headers else None
        if not always_ranges and self.headers.get("If-Range", tag) != tag:
            start = None
        if start is not None and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if total >= 0:
            self.send_header("Content-Length", str(total - (start or 0)))
        if self.server.sends_tags:
            self.send_header("ETag", tag)
        self.end_headers()
        self.send_body(data[start or 0 :][:cut])

    def partial(self, data: bytes, start: int, tag: str | None = None) -> None:
        """The bytes from `start` on."""
        self.send_response(206 if start else 200)
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", tag or tag_of(data))
        self.end_headers()
        self.send_body(data[start:])

    def send_body(self, body: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


Fault = Callable[[_Handler, bytes], None]


def well(handler: _Handler, data: bytes) -> None:
    """No fault."""
    handler.answer(data)


def cut_after(count: int) -> Fault:
    """The connection ends after `count` bytes of body."""
    return lambda handler, data: handler.answer(data, cut=count)


def stall_after(count: int) -> Fault:
    """`count` bytes of body, then silence."""

    def stall(handler: _Handler, data: bytes) -> None:
        handler.answer(data, cut=count)
        handler.wfile.flush()
        handler.server.closing.wait(30)

    return stall


def status(code: int, **headers: str) -> Fault:
    """An answer of this status. A header's _ stands for a dash."""

    def refuse(handler: _Handler, data: bytes) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return refuse


def ignore_ranges(handler: _Handler, data: bytes) -> None:
    """All of the file, whatever was asked for."""
    handler.answer(data, ranges=False)


def ignore_changes(handler: _Handler, data: bytes) -> None:
    """The range that was asked for, though the file is another than If-Range says."""
    handler.answer(data, always_ranges=True)


def announce(length: int) -> Fault:
    """A Content-Length that is not the file's; -1 for none."""
    return lambda handler, data: handler.answer(data, length=length)


def other_range(handler: _Handler, data: bytes) -> None:
    """A partial answer that begins 10 bytes too late."""
    handler.partial(data, handler.range_start() + 10)


def damage(handler: _Handler, data: bytes) -> None:
    """As many bytes as there should be, under the same tag, but one of them is another."""
    middle = len(data) // 2
    tampered = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    handler.partial(tampered, handler.range_start(), tag=tag_of(data))


def hang_up(handler: _Handler, data: bytes) -> None:
    """No answer at all."""
    handler.close_connection = True
