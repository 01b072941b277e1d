"""Serves the page: its own socket, what may be asked of it, and an end by SIGINT or SIGTERM.

Gradio's server can do more than the page needs: fetch any address of the web for whoever asks, run
functions by name, show files of its caches. A front door lets through what the browser asks for.
"""

import contextlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.errors import UserError
from pix2pix.web.page import CSS, MAX_BYTES, load_models, make_page, require_gradio

API = "/gradio_api/"
PAGES = ("/", "/config", "/theme.css", "/favicon.ico")
FOLDERS = ("/assets/", "/static/", f"{API}heartbeat/")
QUESTIONS = (f"{API}upload_progress", f"{API}queue/data")
FILE = f"{API}file="
JOIN = f"{API}queue/join"
# What may be sent, and how many bytes of it: a photograph in its envelope, or a few settings.
SENT = {f"{API}upload": MAX_BYTES + 2**16, JOIN: 2**16, f"{API}cancel": 2**12, f"{API}reset": 2**12}

# The browser enforces it: nothing is loaded from elsewhere, nothing is sent there.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"


def serve(sources: Sequence[Path], host: str, port: int) -> None:
    """Serve a page that offers these models, until SIGINT or SIGTERM.

    sources: as `Colorizer.from_path` takes them. port: 0 for any that is free. Raises UserError
    where Gradio is missing, the address cannot be used, or a model cannot be loaded.
    """
    require_gradio()
    with listen(host, port) as listening, tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ |= {
            "GRADIO_TEMP_DIR": str(folder),  # removed at the end, whatever is in it
            "GRADIO_EXAMPLES_CACHE": str(folder),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        models = load_models(sources)
        import uvicorn

        config = uvicorn.Config(
            FrontDoor(gradio_app(models, folder), folder),
            log_level="critical",  # a line for each request is not for a terminal
            timeout_graceful_shutdown=1,  # open pages keep a connection for ever
        )
        server: Any = uvicorn.Server(config)
        server.capture_signals = lambda: ending(server)
        print(f"{address(listening)} shows {', '.join(models)}; Ctrl-C ends it", flush=True)
        server.run(sockets=[listening])


def gradio_app(models: dict[str, Colorizer], folder: Path) -> Any:
    """The page as an ASGI application, without what Gradio would add to it."""
    import gradio as gr
    from fastapi import FastAPI

    page = make_page(models, folder)
    page.has_launched = True  # or Gradio would take any path of this machine for an upload
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        css=CSS,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_BYTES,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket on this address; raises UserError where it cannot be had."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address
        raise UserError(
            f"--host {host} --port {port} cannot be used: {reason}; another --port may be "
            "free, and --port 0 finds one"
        ) from None


def address(listening: socket.socket) -> str:
    """What to open in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def ending(server: Any) -> Iterator[None]:
    """SIGINT and SIGTERM end the server; in place of uvicorn's, which raises them again."""
    previous = {
        number: signal.signal(number, server.handle_exit)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class FrontDoor:
    """ASGI: what the page's browser asks for goes to `app`, with limits; anything else is refused.

    folder: the only one whose files are shown, and named in what is sent.
    """

    def __init__(self, app: Any, folder: Path):
        self.app = app
        self.folder = folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refused = self.refusal(scope) if scope["type"] == "http" else 404
        if not refused and scope["path"] == JOIN:
            receive, refused = await self.looked_through(receive)
        if refused:
            await answer(send, refused, "not here")
        else:
            await self.app(scope, receive, with_policy(send))

    def refusal(self, scope: Any) -> int:
        """The status to refuse a request with, by its head; 0 if it is fine."""
        path = scope["path"]
        if scope["method"] == "POST" and path in SENT:
            length = dict(scope["headers"]).get(b"content-length", b"")
            if not length.isdigit():
                return 411
            return 413 if int(length) > SENT[path] else 0
        if scope["method"] not in ("GET", "HEAD"):
            return 405
        if path.startswith(FILE):
            return 0 if self.holds(path.removeprefix(FILE)) else 404
        return 0 if path in PAGES + QUESTIONS or path.startswith(FOLDERS) else 404

    async def looked_through(self, receive: Any) -> tuple[Any, int]:
        """A body of settings, and the status to refuse it with: files it names must be the page's.

        Gradio would fetch a path that is an address, and store it.
        """
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            pending = [json.loads(body)]
        except (ValueError, RecursionError):
            return receive, 400
        while pending:
            value = pending.pop()
            pending += value.values() if isinstance(value, dict) else ()
            pending += value if isinstance(value, list) else ()
            if isinstance(value, dict) and not self.holds(value.get("path", str(self.folder))):
                return receive, 403
        messages = [{"type": "http.request", "body": body}]

        async def again() -> Any:
            return messages.pop() if messages else await receive()

        return again, 0

    def holds(self, path: object) -> bool:
        """Whether a path, links and dots followed, leads into the page's folder."""
        try:
            return Path(os.path.realpath(str(path))).is_relative_to(self.folder)
        except ValueError:  # a zero byte
            return False


def with_policy(send: Any) -> Any:
    """`send` of an answer to a browser, with POLICY in its head."""

    async def send_with_policy(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
        await send(message)

    return send_with_policy


async def answer(send: Any, status: int, text: str) -> None:
    """An answer as Gradio's page reads it."""
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
