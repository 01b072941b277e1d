import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.index_shards import IndexShardsOptions, index_shards
from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.preview import (
    GAP,
    PAIRS_TOP,
    PICTURE_HEIGHT,
    PICTURE_WIDTH,
    PreviewOptions,
    pair_place,
    preview,
)
from pix2pix.data.index import index_shard
from pix2pix.errors import UserError
from tests.others_shards import by_shard_writer
from tests.photographs import encoded
from tests.web_server import WebServer


def draw(shards: Path, out: Path, **flags) -> np.ndarray:
    assert preview(PreviewOptions(shards=str(shards), out=out, **flags)) == 0
    with Image.open(out) as sheet:
        return np.asarray(sheet.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def four_colors(tmp_path_factory) -> tuple[Path, list[tuple[int, int, int]]]:
    """Shards of plain photographs, and their colors in the order of the samples."""
    folder = tmp_path_factory.mktemp("plain")
    colors = {}
    for number, color in enumerate([(200, 60, 40), (40, 180, 60), (50, 70, 210), (210, 190, 40)]):
        name = os.fsdecode(b"%d \xff.png" % number)  # no UTF-8
        (folder / name).write_bytes(encoded(Image.new("RGB", (80, 60), color), "PNG"))
        colors[f"{number:09d}"] = color
    out = folder / "shards"
    flags = {"short_side": 48, "samples_per_shard": 2, "num_workers": 1}
    make_shards(MakeShardsOptions(photos=folder, out=out, split="train", **flags))
    keys = [key for shard in sorted(out.glob("*.tar")) for key in index_shard(shard).names]
    return out, [colors[key] for key in keys]


def test_the_pictures_of_each_sample_are_where_they_should_be(four_colors, tmp_path):
    shards, colors = four_colors
    sheet = draw(shards, tmp_path / "sheet.png")
    for number, color in enumerate(colors):
        left, top = pair_place(number)
        gray = Image.new("RGB", (1, 1), color).convert("L").getpixel((0, 0))
        middle = top + PICTURE_HEIGHT // 2
        for expected, start in (((gray,) * 3, left), (color, left + PICTURE_WIDTH + GAP)):
            shown = sheet[middle, start + 2 : start + PICTURE_WIDTH - 2]
            assert np.abs(shown - expected).max() <= 4
        assert (sheet[middle, left - 3] == 255).all()
    left, top = pair_place(len(colors))
    assert (sheet[top:, left:] == 255).all()  # no fifth


def test_the_sheet_is_decided_by_content_and_seed(tiny_shards, tmp_path):
    a, _, c = (
        draw(tiny_shards, tmp_path / f"{name}.png", seed=seed, num_pairs=6)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (a[PAIRS_TOP:] != c[PAIRS_TOP:]).any()  # the pictures, not only what the heading says


def test_the_sheet_grows_with_the_number_of_pairs(tiny_shards, tmp_path, capsys):
    heights = [
        draw(tiny_shards, tmp_path / "sheet.png", num_pairs=count).shape[0] for count in (3, 4, 99)
    ]
    assert heights[0] < heights[1] < heights[2]
    assert capsys.readouterr().out.splitlines()[-1] == f"24 of 24 samples: {tmp_path}/sheet.png"


def test_another_split_is_another_sheet(tiny_shards, tmp_path):
    train, val = (
        draw(tiny_shards, tmp_path / "sheet.png", split=name) for name in ("train", "val")
    )
    assert train.shape != val.shape


def test_reasons_for_leaving_out_are_drawn(tiny_shards, tmp_path):
    """Only their counts differ, so only their chart does: the right third of the head."""
    for path in tiny_shards.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    before = draw(tmp_path, tmp_path / "sheet.png")
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    manifest["splits"]["train"]["rejected"] = {"near_gray": 7, "too_small": 2}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    after = draw(tmp_path, tmp_path / "sheet.png")
    rows, columns = np.nonzero((before != after).any(axis=2))
    assert columns.min() >= pair_place(2)[0]
    assert rows.max() < pair_place(0)[1]


def test_mistakes_are_one_message_and_nothing_is_written(tiny_shards, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in tiny_shards.iterdir():
        if path.is_file():
            (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "train-000001.tar").write_bytes(b"cut short")
    sheet = tmp_path / "sheet.png"
    for words, shards, flags in [
        ("there is no folder", tmp_path / "no", {}),
        ("has no manifest.json", tmp_path, {}),
        (r"has no split 'test' \(there: train, val\)", tiny_shards, {"split": "test"}),
        ("train-000001.tar was altered", damaged, {}),
        (r"ends in .png", tiny_shards, {"out": tmp_path / "sheet.jpg"}),
        ("there is no folder", tiny_shards, {"out": tmp_path / "no" / "sheet.png"}),
        ("give 1 to 4000", tiny_shards, {"num_pairs": 0}),
    ]:
        with pytest.raises(UserError, match=words):
            preview(PreviewOptions(**{"shards": str(shards), "out": sheet, **flags}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged"]
    sheet.mkdir()
    with pytest.raises(UserError, match="cannot write to"):
        preview(PreviewOptions(shards=str(tiny_shards), out=sheet))


def test_a_preview_of_a_url_is_the_one_of_the_folder(four_colors, tmp_path, capsys):
    shards, _ = four_colors
    with WebServer() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in shards.iterdir()}
        cache = str(tmp_path / "cache")
        remote = draw(server.url, tmp_path / "remote.png", shards_cache=cache)
    assert "which are fetched" in capsys.readouterr().out
    assert np.array_equal(remote, draw(shards, tmp_path / "local.png"))


def test_shards_that_others_made_are_drawn_gray_beside_color(tmp_path):
    out = tmp_path / "index"
    others = by_shard_writer(tmp_path / "others")
    options = IndexShardsOptions(shards=(str(others),), out=out, min_short_side=40, num_workers=1)
    index_shards(options)
    sheet = draw(out, tmp_path / "sheet.png")
    left, top = pair_place(0)
    middle = sheet[top + PICTURE_HEIGHT // 2]
    width = PICTURE_HEIGHT * 80 // 64
    gray = middle[left + 2 : left + width - 2]
    color = middle[left + width + GAP + 2 : left + 2 * width]
    assert (np.ptp(gray, axis=1) == 0).all()
    assert np.ptp(color, axis=1).max() > 30
