"""The page as a person meets it: the real command, in a real Chromium."""

import json
import re
import signal
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.photos.photo import open_photo
from pix2pix.photos.saving import save_photo
from pix2pix.web.page import EXAMPLES, LABEL, MAX_BYTES, PROBLEM
from pix2pix.web.results import SHOWN_SIDE
from tests.photographs import colorful, encoded
from tests.web.browsing import ROOT, Served, download, opened, pixels, served, shown, upload

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def server(models, tmp_path_factory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("server"), **models) as server:
        yield server


@pytest.fixture
def page(server: Served, browser: Browser) -> Iterator[Page]:
    """The page, on which nothing goes wrong."""
    with opened(server, browser) as (page, complaints):
        yield page
        assert complaints == []


@contextmanager
def recolored(page: Page) -> Iterator[None]:
    """What is done inside shows another picture; waits for that."""
    picture = page.get_by_test_id("imageslider-image").last
    before = picture.get_attribute("src")
    yield
    expect(picture).not_to_have_attribute("src", before)


def test_a_photograph_is_compared_and_downloaded_in_full_resolution(page, models, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    photo = encoded(colorful(1800, 1200), "JPEG", exif=exif)
    upload(page, "Großmutter 1.jpg", photo)
    name, data = download(page, (1200, 1800))
    assert name == "Großmutter 1.colored.jpg"
    expected = Colorizer.from_path(models["first"]).colorize(open_photo(photo))
    save_photo(expected, tmp_path / "expected.jpg")
    assert data == (tmp_path / "expected.jpg").read_bytes()
    assert shown(page) == [(1067, SHOWN_SIDE)] * 2


def test_saturation_and_model_change_what_is_painted(page, models):
    photo = encoded(colorful(90, 70), "PNG")
    upload(page, "a.png", photo)
    painted = {}
    painted["first", 1.0] = download(page, (90, 70))[1]
    with recolored(page):
        page.get_by_label("number input for Saturation").fill("2")
    painted["first", 2.0] = download(page, (90, 70))[1]
    with recolored(page):
        page.get_by_label("Model").click()
        page.get_by_role("option", name="second").click()
    painted["second", 2.0] = download(page, (90, 70))[1]
    assert len(set(painted.values())) == 3
    for (model, saturation), data in painted.items():
        expected = Colorizer.from_path(models[model]).colorize(open_photo(photo), saturation)
        assert np.array_equal(pixels(data), np.array(expected))


def test_an_example_is_a_click_away(page):
    page.locator(".gallery-item").nth(EXAMPLES.index("coffee")).click()
    assert download(page, (600, 400))[0] == "coffee.colored.png"
    assert shown(page) == [(600, 400)] * 2


def test_unusual_photographs_are_colored(page):
    gray = np.linspace(0, 65535, 50 * 40).reshape(40, 50).astype(np.uint16)
    frames = [colorful(30, 20, seed=seed) for seed in (1, 2)]
    unusual = {
        "cmyk.jpg": (encoded(colorful(70, 60).convert("CMYK"), "JPEG"), (70, 60)),
        "deep.png": (encoded(Image.fromarray(gray), "PNG"), (50, 40)),
        "moving.gif": (
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            (30, 20),
        ),
        "dot.png": (encoded(Image.new("L", (1, 1), 90), "PNG"), (1, 1)),
        "scan.tif": (encoded(colorful(65, 45), "TIFF"), (65, 45)),
    }
    for name, (data, size) in unusual.items():
        upload(page, name, data)
        _, colored = download(page, size)
        assert pixels(colored).shape == (*size[::-1], 3), name


def test_a_broken_upload_gets_a_sentence_and_the_next_is_colored(page):
    whole = encoded(colorful(300, 200))
    bomb = encoded(Image.new("L", (13_000, 10_000)), "PNG")
    broken = {
        "cut.jpg": (whole[: len(whole) // 4], "the file is cut short"),
        "text.jpg": (b"not a photograph", "not a picture in one of the formats JPEG, PNG"),
        "empty.png": (b"", "the file is empty"),
        "bomb.png": (bomb, "13000 x 10000 pixels; at most 50,000,000 are opened"),
    }
    for name, (data, sentence) in broken.items():
        upload(page, name, data)
        expect(page.get_by_label(PROBLEM)).to_have_value(re.compile(re.escape(sentence)))
        expect(page.get_by_text(LABEL, exact=True)).to_be_disabled()
    upload(page, "whole.jpg", whole)
    assert download(page, (300, 200))[0] == "whole.colored.jpg"
    expect(page.get_by_label(PROBLEM)).not_to_be_visible()


def test_several_photographs_come_back_as_a_zip(page, models):
    photos = {f"{n}.png": encoded(colorful(90, 70, seed=ord(n)), "PNG") for n in "abc"}
    page.locator("input[type=file]").set_input_files(
        [
            {"name": name, "mimeType": "application/octet-stream", "buffer": data}
            for name, data in photos.items()
        ]
    )
    button = page.get_by_role("button", name=f"{LABEL} (3 photographs)")
    expect(button).to_be_enabled()
    shown(page)
    with page.expect_download() as download:
        button.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["a.colored.png", "b.colored.png", "c.colored.png"]
        for name, data in zip(archive.namelist(), photos.values(), strict=True):
            expected = Colorizer.from_path(models["first"]).colorize(open_photo(data))
            assert np.array_equal(pixels(archive.read(name)), np.array(expected))


def test_it_fits_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    upload(page, "a.png", encoded(colorful(), "PNG"))
    download(page, (80, 64))
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_an_upload_that_is_too_large_gets_a_sentence(server, browser, tmp_path):
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with opened(server, browser) as (page, _):
        page.locator("input[type=file]").set_input_files(tmp_path / "large.jpg")
        expect(page.get_by_text("exceed the maximum allowed size of 50.0 Mb")).to_be_visible()


def ask(url: str, told: Any = None) -> tuple[int, bytes]:
    """Status and body of an answer; POST where there is something to tell."""
    body = None if told is None else json.dumps(told).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_no_path_of_the_server_can_be_read(server):
    weights = server.models["first"] / "model.safetensors"
    paths = ["/etc/passwd", str(weights), "README.md", f"{ROOT}/README.md", str(server.temporary)]
    for path in [*paths, f"{server.temporary}/../asked", "..%2f..%2f..%2f..%2fetc/passwd"]:
        for place in ("gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/", ""):
            assert ask(f"{server.url}/{place}{path}")[0] in (403, 404), place + path


def test_no_path_of_the_server_can_be_given_as_an_upload(server):
    for path in (str(ROOT / "README.md"), "https://example.org/a.jpg"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.jpg"}
        for data in ([file, "first", 1.0], [None, file, 1.0]):
            told = {"data": data, "fn_index": 1, "session_hash": "someone"}
            for place in ("queue/join", "run/predict", "call/predict", "api/predict"):
                assert ask(f"{server.url}/gradio_api/{place}", told)[0] == 403, place
    assert server.asked.read_text() == ""


def test_only_who_has_a_password_sees_the_page_behind_a_web_server(models, browser, tmp_path):
    (tmp_path / "people").write_text("ada:lovelace\n")
    flags = ["--auth", str(tmp_path / "people"), "--root_path", "/color"]
    with served(tmp_path, *flags, one=models["first"]) as server:
        assert ask(f"{server.url}/config")[0] == 401
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(server.url)
            expect(page.get_by_label("password", exact=False).first).to_be_visible()
            assert "/color" in page.content()


def test_the_server_asks_nobody_for_anything(server, page):
    upload(page, "a.png", encoded(colorful(), "PNG"))
    download(page, (80, 64))
    assert server.asked.read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing_behind(models, browser, tmp_path, number):
    with served(tmp_path, one=models["first"]) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        expect(page.get_by_label("Model")).not_to_be_visible()  # there is no choice
        upload(page, "a.png", encoded(colorful(), "PNG"))
        download(page, (80, 64))
        assert [*server.temporary.iterdir()] != []
        server.process.send_signal(number)
        assert server.process.wait(60) == 0
        assert server.process.stdout.read() == ""
        assert [*server.temporary.iterdir()] == []
