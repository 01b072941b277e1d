"""What every benchmark leaves: figures with device and versions, bars side by side, a summary."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pix2pix.benchmark.charts import CHARTS, TITLES, amount, rows
from pix2pix.benchmark.options import Output
from pix2pix.benchmark.plot import draw_report
from pix2pix.benchmark.report import report, spread
from pix2pix.benchmark.summary import summarize
from pix2pix.errors import UserError

LOADER = {
    "samples_per_second": 2000.0,
    "spread": 0.1,
    "decode_bound_samples_per_second": 2500.0,
    "decode_bound_spread": 0.02,
    "classic_samples_per_second": 500.0,
    "classic_spread": 0.05,
    "num_workers": 4,
}


def test_a_report_says_where_it_was_measured(tmp_path: Path):
    report("loader", LOADER, Output(json=tmp_path / "loader.json"))
    written = json.loads((tmp_path / "loader.json").read_text())
    assert LOADER.items() < written.items()
    assert written["benchmark"] == "loader"
    assert written["device"].endswith("cores")
    assert {"python_version", "torch_version", "pillow_version"} < written.keys()


def test_ours_stands_beside_each_other_with_their_ratio():
    ours, bound, classic = rows(CHARTS["loader"][0], LOADER)
    assert (ours.value, ours.spread, ours.note) == (2000.0, 0.1, "")
    assert (bound.note, classic.note) == ("ours: 0.80 times", "ours: 4.00 times")


def test_figures_that_a_report_lacks_have_no_bar():
    some = {name: LOADER[name] for name in ("samples_per_second", "classic_samples_per_second")}
    assert [row.label for row in rows(CHARTS["loader"][0], some)] == ["ours", "folder of pictures"]


def test_bars_are_as_long_as_their_figures_and_say_them():
    (axes,) = draw_report({"benchmark": "loader", "device": "cpu", **LOADER}).axes
    assert [bar.get_width() for bar in axes.patches] == [2000, 2500, 500]
    texts = {text.get_text() for text in axes.texts}
    assert {"2,000 photographs/s", "ours: 0.80 times", "ours: 4.00 times"} < texts


def test_a_summary_is_a_table_of_80_columns_and_a_picture(tmp_path: Path, capsys):
    report("loader", LOADER, Output(json=tmp_path / "loader.json"))
    figures = {
        bar.figure: 1234567.0 for charts in CHARTS.values() for c in charts for bar in c.bars
    }
    report("scaling", figures | {"efficiency_2": 0.9}, Output(json=tmp_path / "scaling.json"))
    capsys.readouterr()
    summarize(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    assert "  decoder alone          2,500 photographs/s  ours: 0.80 times" in lines
    assert any(line.endswith("efficiency 90%") for line in lines)
    with Image.open(tmp_path / "summary.png") as picture:
        assert picture.width == 960


def test_what_is_no_report_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="no report there"):
        summarize(tmp_path)
    (tmp_path / "step.json").write_text("{}")
    with pytest.raises(UserError, match=r"step\.json is no report"):
        summarize(tmp_path)


def test_a_place_that_can_not_be_written_is_named_before_anything_is_measured(tmp_path: Path):
    with pytest.raises(UserError, match=r"give a name that ends in \.png"):
        Output(plot=tmp_path / "plot.jpg")
    with pytest.raises(UserError, match="there is no folder"):
        Output(json=tmp_path / "nowhere" / "figures.json")


@pytest.mark.parametrize(
    ("value", "text"),
    [(2151.4, "2,151 s"), (31.23, "31.2 s"), (4.83, "4.83 s"), (0.0712, "0.071 s")],
)
def test_an_amount_has_the_digits_that_matter(value, text):
    assert amount(value, "s") == text


def test_spread_is_the_range_of_the_rounds_over_their_median():
    assert spread([1.0, 4.0, 2.0]) == 1.5


def test_every_benchmark_has_a_title_and_charts():
    assert TITLES.keys() == CHARTS.keys()
