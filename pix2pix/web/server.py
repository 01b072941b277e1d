"""Serves the page with Gradio's own server, until SIGINT or SIGTERM.

Gradio refuses paths of this machine, and shows files of its own folder alone. It would still fetch
a web address that is sent in the place of an upload: a guard before it refuses that.
"""

import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.errors import UserError
from pix2pix.web.page import CSS, MAX_BYTES, load_models, make_page, require_gradio

MAX_SETTINGS_BYTES = 2**16  # of what is sent that is no upload
UPLOAD = "/gradio_api/upload"


def serve(
    sources: Sequence[Path], host: str, port: int, root_path: str = "", auth: Path | None = None
) -> None:
    """Serve a page that offers these models, until SIGINT or SIGTERM.

    Args:
        sources: as `Colorizer.from_path` takes them.
        host: address to serve at.
        port: 0 for any that is free.
        root_path: where a web server in front shows the page, such as "/color".
        auth: file with a line NAME:PASSWORD for each person who may see the page; None: anyone may.

    Raises:
        UserError: Gradio is missing, the address can't be used, a model can't be loaded, or `auth`
            can't be read.
    """
    require_gradio()
    people = None if auth is None else read_people(auth)
    port = free_port(host, port)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.environ |= {
            "GRADIO_TEMP_DIR": str(folder),  # removed at the end, whatever is in it
            "GRADIO_EXAMPLES_CACHE": str(folder),
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        models = load_models(sources)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        page = launch(models, folder, host, port, root_path, people)
        print(f"{address(host, port)} shows {', '.join(models)}; Ctrl-C ends it", flush=True)
        ended.wait()
        page.close(verbose=False)


def launch(
    models: dict[str, Colorizer],
    folder: Path,
    host: str,
    port: int,
    root_path: str,
    people: list[tuple[str, str]] | None,
) -> Any:
    """Start the server in a thread of its own, and return the page."""
    import gradio as gr
    from starlette.middleware import Middleware

    page = make_page(models, folder)
    page.launch(
        server_name=host,
        server_port=port,
        root_path=root_path,
        auth=people,
        max_file_size=MAX_BYTES,
        allowed_paths=[],
        app_kwargs={"middleware": [Middleware(UploadGuard, folder=folder)]},
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        css=CSS,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        footer_links=[],
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )
    return page


def read_people(file: Path) -> list[tuple[str, str]]:
    """Return (name, password) of each line NAME:PASSWORD. Raises UserError for any other file."""
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--auth {file} can't be read: {error}") from error
    people = [(name, password) for name, _, password in (line.partition(":") for line in lines)]
    if not people or not all(name and password for name, password in people):
        raise UserError(f"--auth {file}: write a line NAME:PASSWORD for each person")
    return people


def free_port(host: str, port: int) -> int:
    """Return the port, or one that is free for 0; raises UserError where it can't be used."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server((host, port), family=family) as listening:
            return int(listening.getsockname()[1])
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address
        raise UserError(
            f"--host {host} --port {port} cannot be used: {reason}; another --port may be "
            "free, and --port 0 finds one"
        ) from None


def address(host: str, port: int) -> str:
    """Return what to open in a browser."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class UploadGuard:
    """ASGI: refuses settings that name a file which is not the page's, by path or web address.

    Args:
        app: gets everything else.
        folder: of the page's files.
    """

    def __init__(self, app: Any, folder: Path):
        self.app = app
        self.folder = folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one connection."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].endswith(UPLOAD):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more and len(body) <= MAX_SETTINGS_BYTES:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > MAX_SETTINGS_BYTES:
            await _refuse(send, 413)
        elif not self._is_fine(body):
            await _refuse(send, 403)
        else:
            messages = [{"type": "http.request", "body": body}]

            async def again() -> Any:
                return messages.pop() if messages else await receive()

            await self.app(scope, again, send)

    def _is_fine(self, body: bytes) -> bool:
        """Tell whether every "path" in it is one of the page's; what is no JSON names none."""
        try:
            pending = [json.loads(body)]
        except (ValueError, RecursionError):
            return True  # a form, as that of the password
        while pending:
            value = pending.pop()
            if isinstance(value, list):
                pending += value
            elif isinstance(value, dict):
                pending += value.values()
                if not self._holds(value.get("path", str(self.folder))):
                    return False
        return True

    def _holds(self, path: object) -> bool:
        """Tell whether a path, links and dots followed, leads into the page's folder."""
        try:
            return Path(os.path.realpath(str(path))).is_relative_to(self.folder)
        except ValueError:  # a zero byte
            return False


async def _refuse(send: Any, status: int) -> None:
    body = b'{"detail": "not here"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
