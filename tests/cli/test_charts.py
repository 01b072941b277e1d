"""Charts say what the values are: round bins, bars as high as counts, marks where they belong."""

import numpy as np
import pytest

from pix2pix.cli.charts import (
    BAR,
    Mark,
    bin_edges,
    chart,
    draw_bars,
    draw_curve,
    draw_histogram,
    new_figure,
    shorten,
)


@pytest.fixture
def axes():
    return new_figure(400, 250).subplots()


def test_bins_are_round_and_hold_all_but_the_highest():
    assert bin_edges([0, 9.9, 10, 10, 25, 99, 95, 100]).tolist() == [0, 20, 40, 60, 80, 100]
    edges = bin_edges([*np.linspace(256, 629, 1000), 30_000, 20_000])
    assert edges[0] <= 256
    assert 629 <= edges[-1] < 700


@pytest.mark.parametrize(
    "values", [[7], [7, 7, 7], [-3, 5], [0.001, 0.002], [255] * 500, [1, 10**6]]
)
def test_every_value_is_counted_once(axes, values):
    draw_histogram(axes, "", "", values)
    assert sum(bar.get_height() for bar in axes.patches) == len(values)
    assert len(axes.patches) <= 66


def test_values_beyond_the_last_bar_are_in_it_and_told(axes):
    draw_histogram(axes, "", "pixels", [*np.linspace(256, 629, 1000), 30_000, 20_000])
    assert axes.get_xlabel() == "pixels (the last bar holds 2 from beyond)"
    assert sum(bar.get_height() for bar in axes.patches) == 1002


def test_an_axis_begins_where_it_is_told():
    assert bin_edges([50, 60, 70], lowest=0)[0] == 0


def test_bars_are_as_high_as_their_counts_and_a_mark_stands_at_its_value(axes):
    draw_histogram(axes, "", "", [5] * 20 + [15] * 10 + [35] * 5, [Mark(20, "here")], lowest=0)
    assert [bar.get_height() for bar in axes.patches] == [20, 10, 5]
    (line,) = axes.lines
    assert line.get_xdata()[0] == 20
    assert [text.get_text() for text in axes.texts] == ["here"]
    assert axes.get_ylim()[1] > 20 * 1.1  # the label has a place of its own


def test_one_among_many_is_still_seen():
    values = [5.0] * 100_000 + [50.0] + [95.0] * 600
    picture = chart((400, 250), lambda axes: draw_histogram(axes, "", "", values, lowest=0))
    blue = (np.asarray(picture) == tuple(bytes.fromhex(BAR[1:]))).all(axis=2)
    assert blue[:, 200:260].any()
    assert not blue[:, 270:330].any()


def test_a_mark_beyond_the_bars_widens_the_axis(axes):
    draw_histogram(axes, "", "", [5, 6, 7], [Mark(70, "far")], lowest=0)
    assert axes.get_xlim()[1] > 70


def test_named_bars_are_as_long_as_their_counts_the_largest_first(axes):
    draw_bars(axes, "", {"few": 10, "many": 40, "some": 20}, of=100)
    assert [bar.get_width() for bar in axes.patches] == [40, 20, 10]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["many", "some", "few"]
    shares = [text.get_text().strip() for text in axes.texts]
    assert shares == ["40 (40.0%)", "20 (20.0%)", "10 (10.0%)"]


def test_no_named_bars_are_no_labels(axes):
    draw_bars(axes, "nothing was left out", {}, of=100)
    assert [label.get_text() for label in axes.get_yticklabels()] == []


def test_a_curve_passes_through_its_points(axes):
    draw_curve(axes, "", "", [(0, 22), (10, 25), (40, 23)], ["0", "", "1"], [Mark(30, "goal")])
    assert axes.lines[0].get_xydata().tolist() == [[0, 22], [10, 25], [40, 23]]
    assert [text.get_text() for text in axes.texts] == ["0", "", "1", "goal"]


def test_a_picture_has_the_size_that_was_asked_for():
    picture = chart((417, 244), lambda axes: draw_bars(axes, "", {"one": 1}, of=1))
    assert (picture.mode, picture.size) == ("RGB", (417, 244))


def test_a_long_name_keeps_its_end():
    short = shorten("folder/" * 50 + "photo.jpg", 14, 200)
    assert short.startswith("…")
    assert short.endswith("folder/photo.jpg")
    assert shorten("photo.jpg", 14, 200) == "photo.jpg"
