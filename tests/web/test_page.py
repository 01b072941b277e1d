"""The parts of the page that need no browser; tests/web/test_page_in_browser.py opens it."""

import asyncio
import importlib.util
import json
import socket
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2pix.errors import UserError
from pix2pix.export.generator import Generator
from pix2pix.photos.photo import PhotoError, luma, open_photo
from pix2pix.web import page, results
from pix2pix.web.page import load_models, require_gradio, write_examples
from pix2pix.web.results import color_file, color_upload
from pix2pix.web.server import MAX_SETTINGS_BYTES, UPLOAD, UploadGuard, free_port, read_people
from tests.photographs import colorful, encoded
from tests.photos.odd_files import ramps


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "exported"
    Generator(image_size=64, width=4, dropout=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def colorizer(exported):
    (colorizer,) = load_models([exported]).values()
    return colorizer


@pytest.mark.parametrize(
    ("name", "kind", "download", "saved_as"),
    [
        ("a.jpg", "JPEG", "a.colored.jpg", "JPEG"),
        ("B.PNG", "PNG", "B.colored.PNG", "PNG"),
        ("c d.tif", "TIFF", "c d.colored.tif", "TIFF"),
        ("e.gif", "GIF", "e.colored.png", "PNG"),
        ("no extension", "JPEG", "no extension.colored.png", "PNG"),
    ],
)
def test_the_download_keeps_format_and_size_and_is_what_the_colorizer_gives(
    colorizer, tmp_path, name, kind, download, saved_as
):
    photo = tmp_path / name
    photo.write_bytes(encoded(colorful(2000, 30), kind))
    result = color_file(colorizer, photo, 0.5, tmp_path)
    assert (result.download.name, result.size) == (download, (2000, 30))
    with Image.open(result.download) as colored:
        assert (colored.format, colored.mode, colored.size) == (saved_as, "RGB", (2000, 30))
        if saved_as != "JPEG":
            expected = colorizer.colorize(open_photo(photo), 0.5)
            assert np.array_equal(np.array(colored), np.array(expected))
    shown = [Image.open(file) for file in (result.gray, result.colored)]
    assert [(picture.mode, picture.size) for picture in shown] == [
        ("L", (results.SHOWN_SIDE, 24)),
        ("RGB", (results.SHOWN_SIDE, 24)),
    ]


def test_results_of_one_name_do_not_meet(colorizer, tmp_path):
    photo = tmp_path / "a.png"
    colorful().save(photo)
    downloads = {color_file(colorizer, photo, s, tmp_path).download for s in (0, 1)}
    assert len({file.read_bytes() for file in downloads}) == 2


def test_16_bits_pages_and_captions_come_back(colorizer, tmp_path):
    pages = [ramps(40, 56, 1, 16), ramps(40, 56, 1, 16)[::-1]]
    photo = tmp_path / "a.tif"
    with tifffile.TiffWriter(photo) as writer:
        for number, scan in enumerate(pages):
            writer.write(scan, description="Grandmother" if not number else None, metadata=None)
    result = color_file(colorizer, photo, 1, tmp_path)
    with tifffile.TiffFile(result.download) as tiff:
        assert [(page.shape, page.dtype) for page in tiff.pages] == [((40, 56, 3), np.uint16)] * 2
        assert tiff.pages[0].description == "Grandmother"
    assert result.notes == ()


def test_several_photographs_come_back_as_a_zip(colorizer, tmp_path):
    photos = [tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.jpg", tmp_path / "b.heic"]
    for photo in photos:
        photo.parent.mkdir(exist_ok=True)
        colorful(seed=len(str(photo))).save(photo, "JPEG")
    (tmp_path / "c.jpg").write_bytes(b"no photograph")
    upload = color_upload(colorizer, [*photos, tmp_path / "c.jpg"], 1, tmp_path)
    with zipfile.ZipFile(upload.download) as archive:
        assert archive.namelist() == ["a.colored.jpg", "a.colored-2.jpg", "b.colored.jpg"]
        assert archive.testzip() is None
        downloads = [result.download.read_bytes() for result in upload.colored]
        assert [archive.read(name) for name in archive.namelist()] == downloads
    assert len(upload.problems) == 1
    assert upload.problems[0].startswith("c.jpg: not a picture")


def test_one_of_several_that_can_be_colored_is_no_zip(colorizer, tmp_path):
    colorful().save(tmp_path / "a.jpg")
    upload = color_upload(colorizer, [tmp_path / "a.jpg", tmp_path / "gone.jpg"], 1, tmp_path)
    assert upload.download.name == "a.colored.jpg"
    nothing = color_upload(colorizer, [tmp_path / "gone.jpg"], 1, tmp_path)
    assert (nothing.colored, nothing.download, len(nothing.problems)) == ((), None, 1)


def test_more_than_the_page_takes_at_once_is_said(colorizer, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MAX_PHOTOS", 1)
    colorful().save(tmp_path / "a.jpg")
    upload = color_upload(colorizer, [tmp_path / "a.jpg"] * 3, 1, tmp_path)
    assert upload.problems == ("1 photographs are colored at once; 2 are left out",)


def test_too_many_pixels_are_refused_before_they_are_decoded(colorizer, tmp_path, monkeypatch):
    photo = tmp_path / "a.png"
    colorful(80, 64).save(photo)
    monkeypatch.setattr(results, "MAX_PIXELS", 80 * 64 - 1)
    with pytest.raises(PhotoError, match="80 x 64 pixels; at most 5,119 are opened"):
        color_file(colorizer, photo, 1, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/model", "y/model", "y/z"], ["x/model", "y/model", "y/z"]),
        (["runs/a", "./runs/a"], ["a"]),
    ],
)
def test_models_are_named_by_what_tells_them_apart(exported, tmp_path, monkeypatch, sources, names):
    monkeypatch.chdir(tmp_path)
    for source in sources:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / source).exists():
            (tmp_path / source).symlink_to(exported)
    assert list(load_models([tmp_path.joinpath(source) for source in sources])) == names


def test_a_model_that_is_none_is_an_error(tmp_path):
    with pytest.raises(UserError, match="neither a run"):
        load_models([tmp_path])


def test_examples_are_gray_photographs(tmp_path):
    files = write_examples(tmp_path / "examples")
    assert sorted(file.stem for file in files) == sorted(page.EXAMPLES)
    for file in files:
        with Image.open(file) as photo:
            assert photo.mode == "L"
            assert np.array_equal(np.array(photo), np.array(luma(photo)))


def test_without_gradio_the_error_says_what_to_install(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else find_spec(name)
    )
    with pytest.raises(UserError, match=r"pip install -e '\.\[web\]'"):
        require_gradio()


def test_a_port_that_is_taken_and_a_host_that_is_none_are_errors():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=f"--port {port} cannot be used: Address already in use;"
        ):
            free_port("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host no\.such\.host\.invalid"):
        free_port("no.such.host.invalid", 0)


def test_a_port_is_found_where_none_is_named():
    assert 0 < free_port("127.0.0.1", 0) < 2**16


@pytest.mark.parametrize("text", ["", "alone", "a:b c", ":secret", "name:"])
def test_a_file_of_passwords_that_has_none_is_an_error(tmp_path, text):
    (tmp_path / "people").write_text(text)
    with pytest.raises(UserError, match="write a line NAME:PASSWORD for each person"):
        read_people(tmp_path / "people")
    with pytest.raises(UserError, match="can't be read"):
        read_people(tmp_path / "absent")


def test_people_are_read_a_line_each(tmp_path):
    (tmp_path / "people").write_text("ada:secret\nbob:two:colons\n")
    assert read_people(tmp_path / "people") == [("ada", "secret"), ("bob", "two:colons")]


JOIN = "/gradio_api/queue/join"


def ask(folder, path, body):
    """The status that comes out of the guard, before an app that answers with 200."""
    sent, heard = [], []
    pieces = [body[:10], body[10:]]

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": len(pieces) > 0}

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        while True:
            message = await receive()
            heard.append(message["body"])
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    asyncio.run(
        UploadGuard(app, folder)({"type": "http", "method": "POST", "path": path}, receive, send)
    )
    assert b"".join(heard) in (b"", body)  # whole, if at all
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("a.jpg", 200),
        ("../secret", 403),
        ("link", 403),
        ("/etc/passwd", 403),
        ("https://example.org/a.jpg", 403),
        ("\0", 403),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/color"])
def test_settings_name_files_of_the_page_only(tmp_path, path, status, prefix):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    if not path.startswith(("/", "http", "\0")):
        path = str(folder / path)
    told = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "demo", 1.0]}
    assert ask(folder, prefix + JOIN, json.dumps(told).encode()) == status


def test_settings_have_a_limit_and_uploads_are_not_looked_into(tmp_path):
    large = b" " * (MAX_SETTINGS_BYTES + 1)
    assert ask(tmp_path, JOIN, large) == 413
    assert ask(tmp_path, UPLOAD, large) == 200
    assert ask(tmp_path, JOIN, large[1:]) == 200


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 60000, b"username=a&password=b"])
def test_what_is_no_json_is_the_apps_to_judge(tmp_path, body):
    assert ask(tmp_path, "/login", body) == 200
