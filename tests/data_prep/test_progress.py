import re

import pytest

from data_prep import progress
from data_prep.progress import Progress, bytes_text


def test_a_log_gets_lines_with_amount_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_EVERY_SECONDS", 0.0)
    with Progress("bytes") as bytes_done:
        bytes_done.begin(3_000_000_000, 19_336_861_798, "train2017.zip")
        bytes_done.advance(1_500_000_000)
        bytes_done.begin(0, None, "val2017.zip")
        bytes_done.advance(10)
    with Progress("photographs") as photographs:
        photographs.begin(0, 4000)
        photographs.advance(1000)
    first, second, third = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"train2017.zip: 4.5 GB of 19.3 GB, \S+ [GM]?k?B?\S* per second, \d+ min left", first
    )
    assert re.fullmatch(r"val2017.zip: 10 bytes, .* per second, no end in sight", second)
    assert re.fullmatch(r"1,000 of 4,000 photographs, [\d,]+ per second, 0 min left", third)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (2_500, "2.5 kB"), (252_907_541, "252.9 MB")],
)
def test_bytes_are_said_in_decimal_units(count, text):
    assert bytes_text(count) == text
