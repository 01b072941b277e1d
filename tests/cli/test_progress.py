"""Progress as a terminal and as a log show it, by a clock that the test sets."""

import io
import re
import sys
from collections.abc import Callable

import pytest

from pix2pix.cli.progress import bytes_text, progress, say


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass on tqdm's clock."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def pass_seconds(seconds: float) -> None:
        now[0] += seconds

    return pass_seconds


def test_a_log_gets_a_line_every_30_seconds(wait, capsys):
    with progress("photographs", 1000, done=10) as bar:
        for _ in range(61):
            wait(1)
            bar.update(5)
    assert capsys.readouterr().err.splitlines() == [
        " 16% 160/1000 [00:30<02:48,  5.00 photographs/s]",
        " 31% 310/1000 [01:00<02:18,  5.00 photographs/s]",
    ]


def test_a_rate_that_drops_does_not_silence_a_log(wait, capsys):
    with progress("photographs", 10_000) as bar:
        for seconds, count in [(31, 9000), (31, 1), (31, 1)]:
            wait(seconds)
            bar.update(count)
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_bytes_have_decimal_units_and_a_title(wait, capsys):
    with progress("bytes", 19_336_861_798, title="train2017.zip", done=3 * 10**9) as bar:
        wait(30)
        bar.update(1_500_000_000)
    with progress("bytes", title="val2017.zip") as bar:
        wait(30)
        bar.update(3_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "train2017.zip:  23% 4.50G/19.3G [00:30<04:56, 50.0MB/s]",
        "val2017.zip: 3.00MB [00:30, 100kB/s]",
    ]


def test_what_is_said_stands_in_a_log_without_the_state_again(wait, capsys):
    with progress("photographs", items=range(40), title="coloring") as bar:
        for number in bar:
            wait(1)
            if number == 35:
                say("one.jpg: damaged")
                bar.write("two.jpg: damaged", file=sys.stderr)
    first, *said = capsys.readouterr().err.splitlines()
    assert first.startswith("coloring:  75% 30/40 [00:30<")
    assert said == ["one.jpg: damaged", "two.jpg: damaged"]


def test_hidden_progress_shows_nothing(wait, capsys):
    with progress("photographs", 10, hidden=True) as bar:
        wait(100)
        bar.update(10)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """What a program writes to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("leave", [False, True])
def test_a_terminal_gets_a_bar_of_80_columns(monkeypatch, wait, leave):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("photographs", 4, title="coloring", leave=leave) as bar:
        say("one.jpg: damaged")
        wait(1)
        bar.update(4)
    states = [state for state in terminal.getvalue().split("\r") if "photographs/s" in state]
    assert re.fullmatch(r"coloring: 100%\|#+\| 4/4 \[.*\]", states[-1].strip())
    assert {len(state.strip()) for state in states} == {80}
    assert "one.jpg: damaged\n" in terminal.getvalue()
    in_the_end = terminal.getvalue().removesuffix("\n").removesuffix("\r").rpartition("\r")[2]
    assert ("100%" in in_the_end) is leave


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (2_500, "2.5 kB"), (252_907_541, "252.9 MB")],
)
def test_bytes_are_said_in_decimal_units(count, text):
    assert bytes_text(count) == text
