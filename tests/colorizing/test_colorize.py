import errno
import os
import platform
import runpy
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.errors import UserError
from pix2pix.model.color import ColorSpace
from pix2pix.model.networks import UNetGenerator, initialize
from pix2pix.photos.coloring import colorize_files
from pix2pix.photos.files import plan_outputs
from pix2pix.photos.ledger import LEDGER
from pix2pix.photos.photo import luma
from pix2pix.photos.saving import side_by_side

SCRIPT = Path(__file__).parents[2] / "scripts" / "colorize.py"


@pytest.fixture(scope="module")
def colorizer():
    generator = UNetGenerator(1, 2, image_size=64, width=2)
    initialize(generator, torch.Generator().manual_seed(0))
    return Colorizer(generator, ColorSpace("lab"), image_size=64)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def picture(mode="RGB", size=(40, 30)):
    gradient = np.linspace(40, 200, size[0] * size[1]).reshape(size[1], size[0])
    if mode == "I;16":
        return Image.fromarray((gradient * 257).astype(np.uint16))
    return Image.fromarray(gradient.astype(np.uint8)).convert(mode)


def save(path, mode="RGB", **parameters):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(mode).save(path, **parameters)
    return path


def run(colorizer, photos, out, compare=False):
    return colorize_files(colorizer.colorize_array, plan_outputs(Path(photos), out, compare))


def files_below(folder):
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != LEDGER)
    return sorted(str(path.relative_to(folder)) for path in found)


@pytest.mark.parametrize(
    ("name", "mode", "saved_as"),
    [
        ("rgb.jpg", "RGB", "JPEG"),
        ("gray.jpeg", "L", "JPEG"),
        ("cmyk.jpg", "CMYK", "JPEG"),
        ("UPPER.JPG", "RGB", "JPEG"),
        ("rgba.png", "RGBA", "PNG"),
        ("gray alpha.png", "LA", "PNG"),
        ("palette.png", "P", "PNG"),
        ("bits.png", "1", "PNG"),
        ("16 bit.png", "I;16", "PNG"),
        ("rgb.webp", "RGB", "WEBP"),
        ("rgba.webp", "RGBA", "WEBP"),
        ("rgb.tif", "RGB", "TIFF"),
        ("16 bit.tiff", "I;16", "TIFF"),
        ("cmyk.tif", "CMYK", "TIFF"),
    ],
)
def test_every_format_and_mode_keeps_its_name_format_and_size(
    colorizer, photos, tmp_path, name, mode, saved_as
):
    save(photos / name, mode)
    report = run(colorizer, photos, tmp_path / "out")
    assert not report.failures
    assert files_below(tmp_path / "out") == [name]
    with Image.open(tmp_path / "out" / name) as colored:
        assert (colored.format, colored.mode, colored.size) == (saved_as, "RGB", (40, 30))
        colored.load()


@pytest.mark.parametrize(
    ("name", "target"),
    [("a.bmp", "a.png"), ("a.gif", "a.png"), ("no extension", "no extension.png")],
)
def test_other_formats_become_png(colorizer, photos, tmp_path, name, target):
    source = photos / name
    picture("L").save(source, "GIF" if name.endswith("gif") else "BMP")
    assert not run(colorizer, source, tmp_path / "out").failures
    with Image.open(tmp_path / "out" / target) as colored:
        assert colored.format == "PNG"


def test_orientation_is_applied_and_not_carried_over(colorizer, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    save(photos / "turned.jpg", exif=exif, icc_profile=b"a profile")
    run(colorizer, photos, tmp_path / "out")
    with Image.open(tmp_path / "out" / "turned.jpg") as colored:
        assert colored.size == (30, 40)
        assert not colored.getexif()
        assert "icc_profile" not in colored.info


def test_jpeg_keeps_full_chroma(colorizer, photos, tmp_path):
    save(photos / "a.jpg")
    run(colorizer, photos, tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.jpg") as colored:
        assert [layer[1:3] for layer in colored.layer] == [(1, 1)] * 3  # 4:4:4


def test_comparison_is_a_file_of_its_own_gray_and_colored_side_by_side(colorizer, photos, tmp_path):
    save(photos / "x" / "a.png")
    save(photos / "b.gif")
    assert not run(colorizer, photos, tmp_path / "out", compare=True).failures
    expected = ["b.compare.png", "b.png", "x/a.compare.png", "x/a.png"]
    assert files_below(tmp_path / "out") == expected
    with Image.open(tmp_path / "out" / "x" / "a.compare.png") as pair:
        assert (pair.mode, pair.size) == ("RGB", (80, 30))
        left, right = pair.crop((0, 0, 40, 30)), pair.crop((40, 0, 80, 30))
    gray = luma(Image.open(photos / "x" / "a.png")).convert("RGB")
    assert np.array_equal(np.array(left), np.array(gray))
    colored = Image.open(tmp_path / "out" / "x" / "a.png")
    assert np.array_equal(np.array(right), np.array(colored))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2000, 1000), (3840, 960)), ((100, 2000), (192, 1920)), ((9000, 1), (3840, 1))],
)
def test_comparison_of_a_large_photograph_fits_on_a_screen(size, expected):
    pair = side_by_side(Image.new("L", size, 90), Image.new("RGB", size, "red"))
    assert pair.size == expected
    assert pair.getpixel((0, 0)) == (90, 90, 90)
    assert pair.getpixel((expected[0] - 1, expected[1] - 1)) == (255, 0, 0)


def test_a_photograph_that_has_the_name_of_a_comparison_is_an_error(photos, tmp_path):
    save(photos / "a.png")
    save(photos / "a.compare.png")
    plan_outputs(photos, tmp_path / "out")
    with pytest.raises(UserError, match=r"a\.compare\.png"):
        plan_outputs(photos, tmp_path / "out", compare=True)


@pytest.mark.parametrize(
    "name", ["two  blanks, a comma.png", "ключ 鍵.png", "[1] *?.png", "-x.png"]
)
def test_odd_names_are_kept(colorizer, photos, tmp_path, name):
    save(photos / "sub folder, one" / name)
    save(photos / "other.png")
    run(colorizer, photos, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["other.png", f"sub folder, one/{name}"]
    run(colorizer, photos / "sub folder, one" / name, tmp_path / "single")
    assert files_below(tmp_path / "single") == [name]


def test_names_that_are_not_utf8_are_kept(colorizer, photos, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    picture().save(photos / "plain.png")
    (photos / "plain.png").rename(photos / name)
    out = tmp_path / os.fsdecode(b"\xff out")
    report = run(colorizer, photos, out)
    assert files_below(out) == [name]
    str(report).encode()  # printable


def test_folder_is_walked_and_sub_folders_are_kept(colorizer, photos, tmp_path):
    for name in ("a.jpg", "x/a.jpg", "x/y/b.png", ".hidden/c.jpg", "._d.jpg"):
        save(photos / name, format="JPEG" if name.endswith("jpg") else "PNG")
    (photos / "notes.txt").write_text("not a photograph")
    (photos / "x" / "back").symlink_to(photos)  # round and round
    report = run(colorizer, photos, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["a.jpg", "x/a.jpg", "x/y/b.png"]
    assert "3 of 3 photographs" in str(report)
    assert "left alone for their extensions: 1 (1 .txt)" in str(report)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/b.jpg", "x/y/c.jpg"]),
        ("x/?.jpg", ["b.jpg"]),
        ("*/*/*", ["x/y/c.jpg"]),
    ],
)
def test_glob_keeps_folders_below_its_first_wildcard(
    colorizer, photos, tmp_path, pattern, expected
):
    for name in ("a.jpg", "x/b.jpg", "x/y/c.jpg"):
        save(photos / name)
    assert not run(colorizer, photos / pattern, tmp_path / "out").failures
    assert files_below(tmp_path / "out") == expected


def test_glob_in_a_folder_with_brackets_in_its_name(colorizer, tmp_path):
    save(tmp_path / "scans [1]" / "a.jpg")
    run(colorizer, tmp_path / "scans [1]" / "*.jpg", tmp_path / "out")
    assert files_below(tmp_path / "out") == ["a.jpg"]


def test_bad_files_are_reported_with_a_reason_and_the_others_go_on(
    colorizer, photos, tmp_path, capsys
):
    save(photos / "a.jpg")
    (photos / "b empty.jpg").touch()
    (photos / "c text.png").write_text("not a photograph")
    whole = (photos / "a.jpg").read_bytes()
    (photos / "d cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "e gone.jpg").symlink_to(photos / "nowhere.jpg")
    save(photos / "f.png")
    report = run(colorizer, photos, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["a.jpg", "f.png"]
    bad = ["b empty.jpg", "c text.png", "d cut.jpg", "e gone.jpg"]
    assert [path.name for path in report.failures] == bad
    assert str(report).startswith(f"2 of 6 photographs colored, in {tmp_path / 'out'}; 4 failed")
    lines = capsys.readouterr().err
    for name in bad:
        assert f"{photos / name}: " in lines


def test_unwritable_output_is_reported_and_the_others_go_on(colorizer, photos, tmp_path, capsys):
    save(photos / "a.jpg")
    save(photos / "b.jpg")
    (tmp_path / "out" / "a.jpg").mkdir(parents=True)  # a folder stands where the file should
    picture(size=(17000, 1)).save(photos / "c.png")
    (photos / "c.png").rename(photos / "c.webp")  # too wide for WebP
    report = run(colorizer, photos, tmp_path / "out")
    assert [path.name for path in report.failures] == ["a.jpg", "c.webp"]
    assert files_below(tmp_path / "out") == ["b.jpg"]  # and no file aside
    assert capsys.readouterr().err.count("cannot be written") == 2


def test_full_disk_stops_with_one_error_and_leaves_no_part(
    colorizer, photos, tmp_path, monkeypatch
):
    save(photos / "a.jpg")
    save(photos / "b.jpg")

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="no space left"):
        run(colorizer, photos, tmp_path / "out")
    assert files_below(tmp_path / "out") == []


def test_a_crash_while_saving_leaves_the_earlier_output(colorizer, photos, tmp_path, monkeypatch):
    save(photos / "a.jpg")
    run(colorizer, photos, tmp_path / "out")
    before = (tmp_path / "out" / "a.jpg").read_bytes()

    def crash(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        run(colorizer, photos, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["a.jpg"]
    assert (tmp_path / "out" / "a.jpg").read_bytes() == before


def test_run_again_replaces_its_outputs(colorizer, photos, tmp_path):
    save(photos / "a.jpg")
    run(colorizer, photos, tmp_path / "out")
    assert not run(colorizer, photos, tmp_path / "out").failures
    assert files_below(tmp_path / "out") == ["a.jpg"]


@pytest.mark.parametrize(
    ("source", "out"),
    [
        *(("photos", out) for out in ("photos", "photos/x", "link", "link/x")),
        *(("photos/**/*", out) for out in ("photos", "photos/x", "link", "link/x")),
        *(("photos/x/b.bmp", out) for out in ("photos/x", "link/x")),
        ("link", "photos"),
    ],
)
def test_output_among_the_inputs_is_refused_before_anything_is_written(tmp_path, source, out):
    save(tmp_path / "photos" / "a.jpg")
    save(tmp_path / "photos" / "x" / "b.bmp")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    before = files_below(tmp_path)
    with pytest.raises(UserError, match="choose another folder for --out"):
        plan_outputs(tmp_path / source, tmp_path / out)
    assert files_below(tmp_path) == before


def test_input_that_is_a_link_into_the_output_folder_is_refused(photos, tmp_path):
    original = save(tmp_path / "originals" / "a.jpg")
    (photos / "a.jpg").symlink_to(original)
    with pytest.raises(UserError, match="choose another folder for --out"):
        plan_outputs(photos, tmp_path / "originals")


def test_output_that_is_a_link_to_an_input_leaves_the_input_alone(colorizer, photos, tmp_path):
    original = save(photos / "a.jpg")
    before = original.read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").symlink_to(original)
    run(colorizer, photos, tmp_path / "out")
    assert original.read_bytes() == before
    assert not (tmp_path / "out" / "a.jpg").is_symlink()


def test_inputs_of_one_name_are_all_kept(colorizer, photos, tmp_path):
    for name in ("a.bmp", "a.gif", "a.png", "b.bmp"):
        save(photos / name)
    run(colorizer, photos, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["a.bmp.png", "a.gif.png", "a.png", "b.png"]


def test_inputs_that_would_still_meet_are_an_error(photos, tmp_path):
    for name in ("a.bmp", "a.png", "a.bmp.png"):
        save(photos / name)
    with pytest.raises(UserError, match=r"2 photographs .* a\.bmp\.png; rename"):
        plan_outputs(photos, tmp_path / "out")


@pytest.mark.parametrize("source", ["empty", "nowhere", "nowhere/*.jpg", "empty/*.jpg"])
def test_nothing_to_color_is_an_error(tmp_path, source):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photographs"):
        plan_outputs(tmp_path / source, tmp_path / "out")


@pytest.mark.parametrize("out", ["out", "out/below"])
def test_out_that_is_a_file_is_an_error(photos, tmp_path, out):
    save(photos / "a.jpg")
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match=r"out is no folder that can be written to"):
        plan_outputs(photos, tmp_path / out)


@pytest.mark.parametrize(("bad", "status"), [(False, 0), (True, 1)])
def test_script_colors_a_folder_and_says_how_many(
    colorizer, photos, tmp_path, monkeypatch, capsys, bad, status
):
    save(photos / "a photo.jpg")
    if bad:
        (photos / "b.jpg").write_text("not a photograph")
    monkeypatch.setattr(Colorizer, "from_path", lambda source: colorizer)
    assert run_script(monkeypatch, photos, tmp_path / "out") == status
    assert files_below(tmp_path / "out") == ["a photo.jpg"]
    output = capsys.readouterr()
    assert f"1 of {1 + bad} photographs colored, in {tmp_path / 'out'}" in output.out
    assert "coloring: 100%" in output.err


def test_script_ends_with_status_2_and_one_line_on_a_users_mistake(
    photos, tmp_path, monkeypatch, capsys
):
    save(photos / "a.jpg")
    assert run_script(monkeypatch, photos, photos) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: --out")
    assert "Traceback" not in output.err


def test_script_hands_its_flags_on(colorizer, photos, tmp_path, monkeypatch):
    picture("L", size=(64, 64)).save(photos / "a.png")
    monkeypatch.setattr(Colorizer, "from_path", lambda source: colorizer, raising=False)
    flags = ["--compare", "--saturation", "0", "--restore_contrast"]
    assert run_script(monkeypatch, photos, tmp_path / "out", *flags) == 0
    assert files_below(tmp_path / "out") == ["a.compare.png", "a.png"]
    colored = np.array(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(colored[..., 0], colored[..., 2])
    assert (colored.min(), colored.max()) == (0, 255)


@pytest.mark.parametrize("saturation", ["-1", "4.1", "nan", "inf", "vivid"])
def test_a_saturation_out_of_range_is_a_users_mistake(
    photos, tmp_path, monkeypatch, capsys, saturation
):
    save(photos / "a.jpg")
    flags = [f"--saturation={saturation}"]
    assert run_script(monkeypatch, photos, tmp_path / "out", *flags) == 2
    assert capsys.readouterr().err.startswith("error: --saturation")


def test_16_bits_come_back_as_16(colorizer, photos, tmp_path):
    deep = (np.linspace(0.1, 0.9, 64 * 80).reshape(64, 80) * 65535).astype(np.uint16)
    tifffile.imwrite(photos / "a.tif", deep, resolution=(600, 600), resolutionunit="INCH")
    Image.fromarray(deep).save(photos / "b.png")
    assert not run(colorizer, photos, tmp_path / "out").failures
    as_tiff = tifffile.imread(tmp_path / "out" / "a.tif")
    as_png = imagecodecs.png_decode((tmp_path / "out" / "b.png").read_bytes())
    for colored in (as_tiff, as_png):
        assert (colored.dtype, colored.shape) == (np.uint16, (64, 80, 3))
        assert len(np.unique(colored)) > 3000
        luma = colored @ np.array([0.299, 0.587, 0.114])
        assert np.corrcoef(luma.ravel(), deep.ravel())[0, 1] > 0.99
    with Image.open(tmp_path / "out" / "a.tif") as saved:
        assert saved.info["dpi"] == (600, 600)


def test_a_tiff_of_several_pages_comes_back_as_one(colorizer, photos, tmp_path):
    pages = [picture("L"), picture("L").rotate(180), picture("L", size=(44, 30))]
    pages[0].save(photos / "a.tif", save_all=True, append_images=pages[1:])
    assert not run(colorizer, photos, tmp_path / "out").failures
    with Image.open(tmp_path / "out" / "a.tif") as saved:
        assert saved.n_frames == 3
        for index, page in enumerate(pages):
            saved.seek(index)
            assert saved.size == page.size
            assert np.abs(luma_of(saved) - luma_of(page)).mean() < 4


def luma_of(shown):
    return np.asarray(shown.convert("L")).astype(int)


def test_a_jpeg_without_its_last_bytes_is_colored_with_a_word(colorizer, photos, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (160, 200), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "a.jpg")
    whole = (photos / "a.jpg").read_bytes()
    (photos / "a.jpg").write_bytes(whole[: int(0.8 * len(whole))])
    (photos / "b.jpg").write_bytes(whole[:-2])
    report = run(colorizer, photos, tmp_path / "out")
    assert report.is_complete
    assert files_below(tmp_path / "out") == ["a.jpg", "b.jpg"]
    assert "a.jpg: its last rows are missing: about" in capsys.readouterr().err
    assert "1: its last rows are missing" in str(report)


@pytest.mark.parametrize(
    ("name", "saved_as", "target"),
    [
        ("a.avif", "keep", "a.jpg"),
        ("a.jp2", "keep", "a.jpg"),
        ("a.jfif", "keep", "a.jfif"),
        ("a.pgm", "keep", "a.png"),
        ("a.jpeg", "jpg", "a.jpeg"),
        ("a.png", "jpg", "a.jpg"),
        ("a.png", "tiff", "a.tif"),
        ("a.TIFF", "tiff", "a.TIFF"),
        ("a.webp", "png", "a.png"),
    ],
)
def test_what_comes_back_for_each_format(colorizer, photos, tmp_path, name, saved_as, target):
    kinds = {".avif": "AVIF", ".jp2": "JPEG2000", ".jfif": "JPEG", ".pgm": "PPM"}
    suffix = Path(name).suffix
    save(photos / name, "L", **({"format": kinds[suffix]} if suffix in kinds else {}))
    plan = plan_outputs(photos, tmp_path / "out", saved_as=saved_as)
    assert colorize_files(colorizer.colorize_array, plan).is_complete
    assert files_below(tmp_path / "out") == [target]


def test_several_paths_keep_their_places_below_what_they_share(colorizer, tmp_path):
    for name in ("scans/1943/a.jpg", "scans/1944/a.jpg", "scans/b.jpg", "other/c.jpg"):
        save(tmp_path / name)
    paths = [tmp_path / "scans" / "1943", tmp_path / "scans" / "1944", tmp_path / "scans" / "b.jpg"]
    report = colorize_files(colorizer.colorize_array, plan_outputs(paths, tmp_path / "out"))
    assert report.is_complete
    assert files_below(tmp_path / "out") == ["1943/a.jpg", "1944/a.jpg", "b.jpg"]
    again = plan_outputs([paths[2], paths[2], tmp_path / "scans" / "*.jpg"], tmp_path / "out2")
    assert [task.target.name for task in again.tasks] == ["b.jpg"]


def test_script_takes_several_paths(colorizer, photos, tmp_path, monkeypatch):
    first, second = save(photos / "a.jpg"), save(photos / "b.jpg")
    monkeypatch.setattr(Colorizer, "from_path", lambda source: colorizer)
    assert run_script(monkeypatch, [first, second], tmp_path / "out") == 0
    assert files_below(tmp_path / "out") == ["a.jpg", "b.jpg"]


def test_a_run_that_was_stopped_goes_on(colorizer, photos, tmp_path, monkeypatch, capsys):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        save(photos / name)
    monkeypatch.setattr(Colorizer, "from_path", lambda source: colorizer)
    out, colored = tmp_path / "out", []

    def colorize(self, gray, **options):
        if len(colored) == 2:
            raise KeyboardInterrupt
        colored.append(gray.shape)
        return np.dstack([gray] * 3)

    monkeypatch.setattr(Colorizer, "colorize_array", colorize)
    assert run_script(monkeypatch, photos, out) == 130
    assert files_below(out) == ["a.jpg", "b.jpg"]

    def made_by(*flags):
        before = {name: (out / name).stat().st_ino for name in files_below(out)}
        assert run_script(monkeypatch, photos, out, *flags) == 0
        return [name for name in files_below(out) if (out / name).stat().st_ino != before.get(name)]

    monkeypatch.setattr(
        Colorizer, "colorize_array", lambda self, gray, **options: np.dstack([gray] * 3)
    )
    assert made_by() == ["c.jpg"]
    assert "2 of them were there" in capsys.readouterr().out
    assert made_by() == []
    os.utime(photos / "a.jpg", (1, 1))  # another file may lie there
    assert made_by() == ["a.jpg"]
    (out / "b.jpg").write_bytes(b"cut")
    assert made_by() == ["b.jpg"]
    assert made_by("--saturation", "0.5") == ["a.jpg", "b.jpg", "c.jpg"]
    assert made_by("--saturation", "0.5", "--overwrite") == ["a.jpg", "b.jpg", "c.jpg"]
    other = UNetGenerator(1, 2, image_size=64, width=2)
    initialize(other, torch.Generator().manual_seed(1))
    monkeypatch.setattr(
        Colorizer, "from_path", lambda source: Colorizer(other, ColorSpace("lab"), image_size=64)
    )
    assert made_by("--saturation", "0.5") == ["a.jpg", "b.jpg", "c.jpg"]


def test_folders_that_cannot_be_listed_are_named_and_the_rest_goes_on(
    colorizer, photos, tmp_path, monkeypatch, capsys
):
    save(photos / "a.jpg")
    save(photos / "lost+found" / "b.jpg")
    save(photos / "closed" / "c.jpg")
    real = os.scandir

    def scandir(path):  # root, as which tests may run, is refused nothing
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = run(colorizer, photos, tmp_path / "out")
    assert files_below(tmp_path / "out") == ["a.jpg"]
    assert not report.is_complete
    assert "folders that could not be listed: 1" in str(report)
    assert "closed: cannot be listed: Permission denied" in capsys.readouterr().err


def test_what_a_killed_run_left_is_removed(colorizer, photos, tmp_path, capsys):
    save(photos / "below" / "a.jpg")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / "out" / "below" / f".colorize-{platform.node()}-{ended.pid}-7.partial"
    left.parent.mkdir(parents=True)
    left.touch()
    run(colorizer, photos, tmp_path / "out")
    assert not left.exists()
    assert "unfinished files of a run that was killed: 1 removed" in capsys.readouterr().err


def test_raw_files_in_a_folder_are_counted_with_what_to_do(colorizer, photos, tmp_path):
    save(photos / "a.jpg")
    (photos / "a.nef").write_bytes(b"II*\0")
    report = run(colorizer, photos, tmp_path / "out")
    assert "left alone for their extensions: 1 (1 .nef)" in str(report)
    assert ".nef: a camera's raw file is not developed here; develop it first" in str(report)


def test_larger_photographs_need_a_flag(colorizer, photos, tmp_path, monkeypatch, capsys):
    save(photos / "a.jpg")
    monkeypatch.setattr(Colorizer, "from_path", lambda source: colorizer)
    small = ["--max_megapixels", "0.001"]
    assert run_script(monkeypatch, photos, tmp_path / "out", *small) == 1
    assert "at most 1,000 are opened; --max_megapixels allows more" in capsys.readouterr().err
    assert run_script(monkeypatch, photos, tmp_path / "out", "--max_megapixels", "200") == 0


def run_script(monkeypatch, photos, out, *flags):
    paths = map(str, photos if isinstance(photos, list) else [photos])
    arguments = ["--run_dir", "run", "--photos", *paths, "--out", str(out), *flags]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as exit_status:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return exit_status.value.code or 0
