"""A web server that shows another server's pages under a path of its own, as nginx is told to.

    location /color/ { proxy_pass http://127.0.0.1:7860/; proxy_buffering off; }

It hands on method, headers and body, and what comes back as it comes: the page waits for events.
"""

import http.client
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.web_server import LoopbackServer

_OF_A_CONNECTION = frozenset(("connection", "keep-alive", "transfer-encoding", "te", "upgrade"))
_PIECE = 2**16


class Proxy(LoopbackServer):
    """Shows `target` below `prefix`; anything else of it is not found.

    Attributes:
        asked: the paths that were asked for.
    """

    def __init__(self, target: str, prefix: str) -> None:
        super().__init__(_Handler)
        self.target, self.prefix = urlsplit(target).netloc, prefix
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # browsers ask every site for it: the other server's own
            self.send_response(204)
            self.end_headers()
            return
        self.server.asked.append(self.path)
        prefix = self.server.prefix
        if self.path == prefix:
            self.send_response(301)
            self.send_header("Location", f"{prefix}/")
            self.end_headers()
        elif self.path.startswith(f"{prefix}/"):
            self.hand_on(self.path.removeprefix(prefix))
        else:
            self.send_error(404)

    do_POST = do_HEAD = do_GET

    def hand_on(self, path: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_CONNECTION}
        headers |= {"X-Forwarded-Proto": "http", "X-Forwarded-Host": self.headers["Host"]}
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.request(self.command, path, body or None, headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_A_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Connection", "close")  # what has no length ends with it
            self.end_headers()
            while piece := answer.read1(_PIECE):
                self.wfile.write(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser has left
        finally:
            self.close_connection = True
            connection.close()

    def log_message(self, *_: object) -> None:
        pass
