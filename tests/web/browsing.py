"""The real command and a real Chromium, for tests of the page."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect

from pix2pix.web.page import LABEL, TITLE

ROOT = Path(__file__).parents[2]
MILLISECONDS = 30_000  # for a picture to be colored: many times what it takes on one busy core

# Runs in the server: writes down every address but this machine's that is asked for.
WATCH = """
import sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.connect"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = address[0] if isinstance(address, tuple) else address
        if str(host) not in ("127.0.0.1", "localhost", "::1"):
            print("asked for", address, file=open({log!r}, "a"))
sys.addaudithook(watch)
"""


class Served(NamedTuple):
    """A server of the page: where it is, what it says and keeps, and the models it shows."""

    url: str
    process: subprocess.Popen[str]
    temporary: Path
    asked: Path
    models: dict[str, Path]


@contextmanager
def served(folder: Path, *flags: str, **models: Path) -> Iterator[Served]:
    """`scripts/page.py` as a process of its own."""
    asked, temporary = folder / "asked", folder / "temporary"
    temporary.mkdir()
    asked.touch()
    (folder / "sitecustomize.py").write_text(WATCH.format(log=str(asked)))
    sources = ",".join(map(str, models.values()))
    command = [sys.executable, "scripts/page.py", "--run_dir", sources, "--port", "0", *flags]
    environment = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "TMPDIR": str(temporary),
    }
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + process.stdout.read()
        yield Served(line.split()[0], process, temporary, asked, models)
    finally:
        process.kill()
        process.wait()


@contextmanager
def opened(server: Served, browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """The page, and what goes wrong on it: questions to other hosts, errors in the console."""
    complaints: list[str] = []

    def look_at(request: Request) -> None:
        if not request.url.startswith((server.url, "data:", "blob:")):
            complaints.append(f"asked for {request.url}")

    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("request", look_at)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: m.type != "error" or complaints.append(m.text))
        page.goto(server.url)
        expect(page.get_by_role("heading", name=TITLE)).to_be_visible()
        yield page, complaints


def upload(page: Page, name: str, data: bytes) -> None:
    """Hand a file to the page, in place of the one that it has."""
    taken_away = page.get_by_label("Clear")
    if taken_away.count():
        taken_away.click()
    page.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )


def download(page: Page, size: tuple[int, int]) -> tuple[str, bytes]:
    """Name and bytes of what the button gives, once it offers a picture of this size."""
    button = page.get_by_role("button", name=f"{LABEL} ({size[0]} × {size[1]})")
    expect(button).to_be_enabled()
    shown(page)  # while pictures arrive, the button moves: a click pressed here and let go there
    with page.expect_download() as download:
        button.click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def shown(page: Page) -> list[tuple[int, int]]:
    """Sizes of the pictures that lie on each other in the slider, as the browser decoded them."""
    pictures = page.get_by_test_id("imageslider-image")
    expect(pictures).to_have_count(2)
    return [
        tuple(picture.evaluate("p => p.decode().then(() => [p.naturalWidth, p.naturalHeight])"))
        for picture in pictures.all()
    ]


def pixels(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))
