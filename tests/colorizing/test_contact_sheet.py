import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2pix.colorizing.contact_sheet import GAP, HEIGHT, WIDTH, write_contact_sheet
from pix2pix.errors import UserError
from pix2pix.photos.files import plan_outputs
from pix2pix.photos.saving import save_photo
from tests.photographs import colorful

SCRIPT = Path(__file__).parents[2] / "scripts" / "contact_sheet.py"
ORANGE, TEAL = (230, 120, 40), (20, 130, 130)
MANY = 40


@pytest.fixture
def photos(tmp_path):
    """Orange photographs and one captured in gray, which comes first by its name."""
    folder = tmp_path / "photos"
    for name in ("b/one.png", "b/two.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400, 100), ORANGE).save(folder / name)
    (folder / "a").mkdir()
    Image.new("L", (100, 100), 90).save(folder / "a" / "gray.jpg")
    return folder


@pytest.fixture
def colorized(photos, tmp_path):
    """What colorize.py leaves: the same names, but a .bmp is a .png then. All teal."""
    for task in plan_outputs(photos, tmp_path / "colorized").tasks:
        save_photo(Image.new("RGB", Image.open(task.source).size, TEAL), task.target)
    return tmp_path / "colorized"


def sheet_of(photos, colorized, out, max_rows=MANY):
    return write_contact_sheet(photos, colorized, out, max_rows), Image.open(out).convert("RGB")


def cells(sheet):
    """The color in each column of each row, None for white: [rows][columns]."""
    pixels = np.asarray(sheet).astype(int)
    centers = [GAP + WIDTH // 2 + column * (WIDTH + GAP) for column in range(3)]
    filled = (pixels[:, centers[0]] != 255).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled, [0]])))
    middles = [(top + bottom) // 2 for top, bottom in edges.reshape(-1, 2)]
    colors = [[tuple(map(int, pixels[y, x])) for x in centers] for y in middles]
    return [[None if color == (255, 255, 255) else color for color in row] for row in colors]


def test_a_row_has_gray_colorized_and_truth_and_none_where_it_was_captured_in_gray(
    photos, colorized, tmp_path
):
    count, sheet = sheet_of(photos, colorized, tmp_path / "sheet.png")
    luma = Image.new("RGB", (1, 1), ORANGE).convert("L").getpixel((0, 0))
    with_truth = [(luma,) * 3, TEAL, ORANGE]
    assert count == 3
    *rows, last = cells(sheet)
    assert rows == [with_truth, with_truth]
    np.testing.assert_allclose(last[:2], [(90, 90, 90), TEAL], atol=3)  # a JPEG
    assert last[2] is None


def test_photographs_that_were_not_colored_are_left_out(photos, colorized, tmp_path):
    (colorized / "b" / "two.png").unlink()
    count, sheet = sheet_of(photos, colorized, tmp_path / "sheet.png")
    assert count == len(cells(sheet)) == 2


def test_rows_are_limited(photos, colorized, tmp_path):
    count, sheet = sheet_of(photos, colorized, tmp_path / "sheet.jpg", max_rows=1)
    assert count == len(cells(sheet)) == 1


def test_columns_and_rows_are_labeled(photos, colorized, tmp_path):
    """Rows that differ in nothing but their names differ in the picture of their label."""
    _, sheet = sheet_of(photos, colorized, tmp_path / "sheet.png")
    columns = [GAP + column * (WIDTH + GAP) for column in range(3)]
    headings = [sheet.crop((left, 0, left + WIDTH, 2 * GAP + 10)) for left in columns]
    assert all(np.asarray(heading).min() < 128 for heading in headings)
    assert len({heading.tobytes() for heading in headings}) == 3
    (photos / "b" / "one.png").rename(photos / "b" / "tree.png")
    (colorized / "b" / "one.png").rename(colorized / "b" / "tree.png")
    _, renamed = sheet_of(photos, colorized, tmp_path / "renamed.png")
    assert cells(renamed)[1:] == cells(sheet)[1:]
    assert renamed.tobytes() != sheet.tobytes()


def test_pictures_of_any_size_and_shape_fit(tmp_path):
    photos, colorized = tmp_path / "photos", tmp_path / "colorized"
    photos.mkdir()
    for number, size in enumerate([(2000, 30), (30, 2000), (7, 5), (700, 700)]):
        colorful(*size).save(photos / f"{number}.png")
    for task in plan_outputs(photos, colorized).tasks:
        save_photo(Image.open(task.source), task.target)
    count, sheet = sheet_of(photos, colorized, tmp_path / "sheet.png")
    assert count == 4
    assert sheet.width == 3 * (WIDTH + GAP) + GAP
    assert 3 * HEIGHT < sheet.height < 4 * (HEIGHT + 50)


def test_mistakes_are_one_message_and_nothing_is_written(photos, colorized, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "b").mkdir()
    (tmp_path / "broken" / "b" / "one.png").write_bytes(b"no picture")
    before = sorted(tmp_path.rglob("*"))
    for words, *arguments in [
        ("holds no colored version", photos, tmp_path / "empty", tmp_path / "sheet.png", MANY),
        ("no photographs there", tmp_path / "no", colorized, tmp_path / "sheet.png", MANY),
        ("one.png: not a picture", photos, tmp_path / "broken", tmp_path / "sheet.png", MANY),
        ("ends in .jpg, ", photos, colorized, tmp_path / "sheet.pdf", MANY),
        ("is one of the photographs", photos, colorized, photos / "b" / "one.png", MANY),
        ("give 1 or more", photos, colorized, tmp_path / "sheet.png", 0),
    ]:
        with pytest.raises(UserError, match=words):
            write_contact_sheet(*arguments)
    assert sorted(tmp_path.rglob("*")) == before
    assert Image.open(photos / "b" / "one.png").getpixel((0, 0)) == ORANGE


def test_the_script_says_where_the_sheet_is(photos, colorized, tmp_path, capsys, monkeypatch):
    out = tmp_path / "new folder" / "sheet.png"
    flags = ["--photos", photos, "--colorized", colorized, "--out", out]
    monkeypatch.setattr(sys, "argv", ["contact_sheet.py", *map(str, flags)])
    with pytest.raises(SystemExit) as exited:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"3 photographs: {out}\n"
    assert out.is_file()
