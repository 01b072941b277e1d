"""A real HTTP server on loopback over a folder of shards, which counts and misbehaves on demand."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.web_server import LoopbackServer


class ShardServer(LoopbackServer):
    """Serves `folder`; a request for a name takes the next of `faults[name]`, if any is left."""

    def __init__(self, folder: Path) -> None:
        super().__init__(_Handler)
        self.folder = folder
        self.asked: Counter[str] = Counter()  # requests by name
        self.queries: set[str] = set()
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)

    @property
    def tars(self) -> dict[str, int]:
        """How often each tar was asked for."""
        return {name: count for name, count in self.asked.items() if name.endswith(".tar")}


class _Handler(BaseHTTPRequestHandler):
    server: ShardServer

    def do_GET(self) -> None:
        name, _, query = self.path.lstrip("/").partition("?")
        self.server.asked[name] += 1
        self.server.queries.add(query)
        faults = self.server.faults[name]
        path = self.server.folder / name
        try:
            if not path.is_file():
                self.send_error(404)
            else:
                (faults.popleft() if faults else whole)(self, path.read_bytes())
        except (BrokenPipeError, ConnectionResetError):
            pass

    def begin(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


Fault = Callable[[_Handler, bytes], None]


def whole(handler: _Handler, data: bytes) -> None:
    handler.begin(len(data))
    handler.wfile.write(data)


def cut(handler: _Handler, data: bytes) -> None:
    """Half of what was announced, then the connection is closed."""
    handler.begin(len(data))
    handler.wfile.write(data[: len(data) // 2])


def shorter(handler: _Handler, data: bytes) -> None:
    """A file that was cut at the source: announced as short as it is."""
    whole(handler, data[: len(data) // 2])


def flipped(handler: _Handler, data: bytes) -> None:
    middle = len(data) // 2
    whole(handler, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def grown(handler: _Handler, data: bytes) -> None:
    whole(handler, data + b"more")


def gone(handler: _Handler, data: bytes) -> None:
    handler.send_error(404)


def denied(handler: _Handler, data: bytes) -> None:
    handler.send_error(403)


def silent(handler: _Handler, data: bytes) -> None:
    """Begins, then says nothing for as long as the server lives."""
    handler.begin(len(data))
    handler.wfile.write(data[:10])
    handler.wfile.flush()
    handler.server.closing.wait()
