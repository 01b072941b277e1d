"""The page below a path of another web server, in a real Chromium: `--root_path /color`."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.photos.photo import open_photo
from pix2pix.web.page import LABEL
from tests.photographs import colorful, encoded
from tests.web.browsing import Served, download, opened, pixels, served, shown, upload
from tests.web.proxy import Proxy

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PREFIX = "/color"


@pytest.fixture(scope="module")
def proxy(models: dict[str, Path], tmp_path_factory) -> Iterator[tuple[Proxy, Served]]:
    folder = tmp_path_factory.mktemp("behind")
    with (
        served(folder, "--root_path", PREFIX, one=models["first"]) as server,
        Proxy(server.url, PREFIX) as proxy,
    ):
        yield proxy, server._replace(url=proxy.url + PREFIX)


@pytest.fixture
def page(proxy: tuple[Proxy, Served], browser: Browser) -> Iterator[Page]:
    """The page, which asks for nothing outside of its path."""
    with opened(proxy[1], browser) as (page, complaints):
        yield page
        assert complaints == []
    assert [path for path in proxy[0].asked if not path.startswith(PREFIX)] == []


def test_a_photograph_is_colored_and_downloaded(page: Page, models: dict[str, Path]) -> None:
    photo = encoded(colorful(90, 70), "PNG")
    upload(page, "a.png", photo)
    name, data = download(page, (90, 70))
    assert name == "a.colored.png"
    expected = Colorizer.from_path(models["first"]).colorize(open_photo(photo))
    assert np.array_equal(pixels(data), np.array(expected))
    assert shown(page) == [(90, 70)] * 2


def test_several_come_back_as_a_zip(page: Page) -> None:
    page.locator("input[type=file]").set_input_files(
        [
            {
                "name": f"{seed}.png",
                "mimeType": "application/octet-stream",
                "buffer": encoded(colorful(60, 40, seed=seed), "PNG"),
            }
            for seed in (1, 2)
        ]
    )
    button = page.get_by_role("button", name=f"{LABEL} (2 photographs)")
    expect(button).to_be_enabled()
    shown(page)
    with page.expect_download() as download:
        button.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["1.colored.png", "2.colored.png"]
        assert pixels(archive.read("2.colored.png")).shape == (40, 60, 3)


def test_an_example_is_a_click_away(page: Page) -> None:
    page.locator(".gallery-item").first.click()
    expect(page.get_by_role("button", name=f"{LABEL} (")).to_be_enabled()
    assert len(shown(page)) == 2
