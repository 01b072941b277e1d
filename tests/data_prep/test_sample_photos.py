from pathlib import Path

import numpy as np
import pytest

from data_prep.photos import COLOR_PHOTOS
from data_prep.sample_photos import (
    KEPT_OUT,
    VAL_FROM,
    SamplePhotosOptions,
    region_boxes,
    split_boxes,
    write_sample_photos,
)
from pix2pix.photos.photo import open_photo

DEMO_SHORT_SIDE = 143  # 128 px training: 128 * 286 / 256


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "photographs"
    assert write_sample_photos(SamplePhotosOptions(out=out)) == 0
    return out


def pixels(path: Path) -> np.ndarray:
    return np.asarray(open_photo(path))


def test_no_pixel_of_validation_is_trained_on() -> None:
    for source in COLOR_PHOTOS:
        if source.name == KEPT_OUT:
            assert source.name not in VAL_FROM
            continue
        width, height = open_photo(source.path).size
        training, kept_out = split_boxes(source.name, (width, height))
        uses = np.zeros((height, width), dtype=int)
        for left, upper, right, lower in region_boxes(training):
            assert 0 <= left < right <= width
            assert 0 <= upper < lower <= height
            uses[upper:lower, left:right] = 1
        left, upper, right, lower = kept_out
        uses[upper:lower, left:right] += 2
        assert set(np.unique(uses)) == {1, 2}, source.name  # all used, none of it for both


def test_what_is_written_are_those_regions(written: Path) -> None:
    for source in COLOR_PHOTOS:
        photo = open_photo(source.path)
        whole = np.asarray(photo)
        kept_out = pixels(written / f"val/{source.name}.png")
        if source.name == KEPT_OUT:
            assert np.array_equal(kept_out, whole)
            assert not list(written.glob(f"train/{source.name}*"))
            continue
        training, (left, upper, right, lower) = split_boxes(source.name, photo.size)
        assert np.array_equal(kept_out, whole[upper:lower, left:right])
        boxes = list(region_boxes(training))
        paths = sorted(written.glob(f"train/{source.name}-*.png"))
        assert len(paths) == len(boxes)
        for path, (left, upper, right, lower) in zip(paths, boxes, strict=True):
            assert np.array_equal(pixels(path), whole[upper:lower, left:right])


def test_there_is_enough_to_train_on_and_all_is_large_enough(written: Path) -> None:
    training = list(written.glob("train/*.png"))
    assert 100 <= len(training) <= 200
    for path in [*training, *written.glob("val/*.png")]:
        assert min(open_photo(path).size) >= DEMO_SHORT_SIDE, path
    of_each = [len(list(written.glob(f"train/{name}-*"))) for name in VAL_FROM]
    assert max(of_each) < 1.5 * min(of_each)  # no photograph outweighs the others


def test_gray_ones_are_single_channel(written: Path) -> None:
    names = sorted(path.stem for path in written.glob("gray/*.png"))
    assert names == ["camera", "coins", "moon"]
    assert all(open_photo(path).mode == "L" for path in written.glob("gray/*.png"))


def test_every_photograph_is_credited(written: Path) -> None:
    credits = (written / "CREDITS.txt").read_text()
    for path in [*written.glob("val/*.png"), *written.glob("gray/*.png")]:
        assert f"{path.stem}: " in credits


def test_again_leaves_all_as_it_is_and_mends_what_is_not(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def state() -> dict[Path, tuple[int, bytes]]:
        files = [path for path in written.rglob("*") if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    damaged = written / "val/coffee.png"
    data = damaged.read_bytes()
    damaged.write_bytes(data[:100])
    write_sample_photos(SamplePhotosOptions(out=written))
    assert damaged.read_bytes() == data
    assert {**state(), damaged: None} == {**before, damaged: None}
    assert len(capsys.readouterr().out.splitlines()) == 1
