"""The sheet of a report: which photographs it shows, and what stands where."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from pix2pix.evaluation.evaluation import Scores
from pix2pix.evaluation.sheet import (
    GAP,
    GROUP_WIDTH,
    GUTTER,
    MARGIN,
    PHOTOS_TOP,
    PICTURE,
    PITCH,
    choose,
    draw_report_sheet,
)


def test_best_median_and_worst_are_chosen_by_the_metric():
    values = np.random.default_rng(0).permutation(21).astype(float)
    best, median, worst = (values[rows].tolist() for rows in choose(values, higher_is_better=False))
    assert best == [0, 1, 2, 3]
    assert median == [8, 9, 10, 11]
    assert worst == [17, 18, 19, 20]
    best, _, worst = (values[rows].tolist() for rows in choose(values, higher_is_better=True))
    assert best == [20, 19, 18, 17]
    assert worst == [3, 2, 1, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 11, 12, 13])
def test_no_photograph_is_shown_twice_unless_there_are_too_few(count):
    chosen = np.concatenate(choose(np.arange(count, dtype=float), higher_is_better=True))
    assert len(set(chosen.tolist())) == min(len(chosen), count)


class Found:
    """An evaluation of 13 photographs: number i is a plane of brightness 10·i."""

    def __init__(self) -> None:
        values = np.linspace(30, 18, 13)
        columns = {"psnr": values, "ssim": values / 40, "colorfulness": np.full(13, 5.0)}
        self.scores = Scores(np.arange(13), {f"colorized/{n}": c for n, c in columns.items()})
        figures = {name: float(column.mean()) for name, column in columns.items()}
        self.report = figures | {
            "colorfulness_truth": 9.0,
            "curve": [
                {"saturation": s, "psnr": 25 - s, "colorfulness": 5 * s} for s in (0.0, 1.0, 2.0)
            ],
            "delta_e": 7.0,
            "gray": figures,
            "num_samples": 13,
            "run_dir": "runs/first",
            "split": "val",
            "step": 4,
        }

    def pictures(self, positions):
        plane = torch.from_numpy(positions).mul(10).byte().view(-1, 1, 1, 1)
        tint = torch.tensor([1, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
        return (
            plane.expand(-1, 1, 8, 8),
            plane.expand(-1, 3, 8, 8),
            (plane + 100 * tint).expand(-1, 3, 8, 8),
        )

    def sources(self, positions):
        return [("shard/key", f"photo {n}.jpg") for n in positions]


def test_each_photograph_is_a_row_of_gray_colorized_and_truth():
    picture = Image.open(BytesIO(draw_report_sheet(Found(), "psnr")))
    assert picture.mode == "RGB"
    for group, positions in enumerate(([0, 1, 2, 3], [4, 5, 6, 7], [9, 10, 11, 12])):
        for row, position in enumerate(positions):
            left = MARGIN + group * (GROUP_WIDTH + GUTTER) + PICTURE // 2
            y = PHOTOS_TOP + row * PITCH + PICTURE // 2
            level = 10 * position
            seen = [picture.getpixel((left + n * (PICTURE + GAP), y)) for n in range(3)]
            assert seen == [(level,) * 3, (level,) * 3, (level + 100, level, level)]


def test_a_chart_is_drawn_for_every_metric_there_is():
    tall = Image.open(BytesIO(draw_report_sheet(Found(), "psnr")))
    found = Found()
    for number in range(3):
        metric = ("lpips", "chroma", "delta_e")[number]
        found.scores.columns[f"colorized/{metric}"] = found.scores.columns["colorized/psnr"]
        found.report[metric] = found.report["gray"][metric] = 24.0
    taller = Image.open(BytesIO(draw_report_sheet(found, "psnr")))
    assert taller.height > tall.height  # a second row of charts
