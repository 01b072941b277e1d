"""Models to show, and a browser to see them with."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, expect, sync_playwright

from pix2pix.export.generator import Generator
from tests.web.browsing import MILLISECONDS

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two networks as torch initializes them, which paint pale colors, but not the same."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        Generator(image_size=64, width=8, dropout=False).save_pretrained(folder / name)
    return {name: folder / name for name in ("first", "second")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.fail("this machine has no Chromium. On Debian: apt-get install chromium")
    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        # Root has no sandbox, and containers have little shared memory.
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        with playwright.chromium.launch(executable_path=program, args=flags) as browser:
            yield browser
