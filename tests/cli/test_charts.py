import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from pix2pix.cli.charts import (
    BAR,
    MARK,
    Histogram,
    Mark,
    draw_bars,
    draw_histogram,
    histogram,
    round_step,
    round_ticks,
    shorten,
)

BOX = (10, 10, 410, 260)


def blank() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (420, 270), "white")
    return picture, ImageDraw.Draw(picture)


def columns_of(picture: Image.Image, color: str) -> list[int]:
    """How many pixels of `color` each column has."""
    return (np.asarray(picture) == ImageColor.getrgb(color)).all(axis=2).sum(axis=0).tolist()


def test_counts_are_those_of_the_values_in_round_bins():
    values = [0, 9.9, 10, 10, 25, 99, 95, 100]
    data = histogram(values)
    width = data.edges[1] - data.edges[0]
    assert width == 20  # 3 * sqrt(8) bins at most
    assert data.edges.tolist() == [0, 20, 40, 60, 80, 100]
    assert data.counts.tolist() == [4, 1, 0, 0, 3]
    assert data.num_beyond == 1  # 100 itself, which is above all but the highest 0.5 %


@pytest.mark.parametrize(
    "values", [[7], [7, 7, 7], [-3, 5], [0.001, 0.002], [255] * 500, [1, 10**6]]
)
def test_every_value_is_counted_once(values):
    data = histogram(values)
    assert data.counts.sum() == len(values)
    assert len(data.edges) == len(data.counts) + 1 <= 66
    inside = [value for value in values if value < data.edges[-1]]
    assert np.histogram(inside, data.edges)[0].sum() == len(inside) == len(values) - data.num_beyond
    assert data.edges[0] <= min(values)


def test_a_few_far_values_do_not_press_the_others_together():
    values = [*np.linspace(256, 629, 1000), 30_000, 20_000]
    data = histogram(values)
    assert data.edges[-1] < 700
    assert data.num_beyond == 2
    assert data.counts.sum() == 1002


def test_an_axis_begins_where_it_is_told():
    assert histogram([50, 60, 70], lowest=0).edges[0] == 0


def test_steps_and_ticks_are_round():
    assert [round_step(least) for least in (0.3, 1, 1.1, 4, 5.5, 70)] == [0.5, 1, 2, 5, 10, 100]
    assert round_ticks(0, 17, 4) == [0, 5, 10, 15]
    assert round_ticks(256, 640, 6) == [300, 400, 500, 600]


def test_bars_are_as_high_as_their_counts_and_a_mark_stands_at_its_value():
    picture, draw = blank()
    data = histogram([5] * 20 + [15] * 10 + [35] * 5, lowest=0)
    draw_histogram(draw, BOX, "", "", data, [Mark(20, "")])
    heights = [count for count in columns_of(picture, BAR) if count]
    highest = max(heights)
    seen = sorted({round(20 * height / highest) for height in heights}, reverse=True)
    assert seen == [20, 10, 5]
    (marked,) = {round(x, -1) for x, count in enumerate(columns_of(picture, MARK)) if count > 50}
    left, right = 10 + 52, 410
    assert marked == pytest.approx(left + 20 / data.edges[-1] * (right - left), abs=6)


def test_one_among_many_is_still_seen():
    picture, draw = blank()
    data = Histogram(np.array([0.0, 10, 20]), np.array([100_000, 1]), num_beyond=0)
    draw_histogram(draw, BOX, "", "", data)
    assert set(columns_of(picture, BAR)[245:405]) == {1}


def test_named_bars_are_as_long_as_their_counts_the_largest_first():
    picture, draw = blank()
    draw_bars(draw, BOX, "", {"few": 10, "many": 40, "some": 20}, of=100)
    rows = (np.asarray(picture) == ImageColor.getrgb(BAR)).all(axis=2).sum(axis=1)
    lengths = [int(n) for n, before in zip(rows[1:], rows, strict=False) if n and not before]
    assert lengths == [401, 201, 101]
    draw_bars(draw, BOX, "", {}, of=100)  # nothing was left out


def test_a_mark_beyond_the_bars_widens_the_axis():
    picture, draw = blank()
    draw_histogram(draw, BOX, "", "", histogram([5, 6, 7], lowest=0), [Mark(70, "far")])
    bars, marks = columns_of(picture, BAR), columns_of(picture, MARK)
    assert max(x for x, count in enumerate(bars) if count) < 120
    assert max(range(len(marks)), key=lambda x: marks[x]) == pytest.approx(410, abs=2)


def test_a_long_name_keeps_its_end():
    short = shorten("folder/" * 50 + "photo.jpg", 14, 200)
    assert short.startswith("…")
    assert short.endswith("folder/photo.jpg")
    assert shorten("photo.jpg", 14, 200) == "photo.jpg"
