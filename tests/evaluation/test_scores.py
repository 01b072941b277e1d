"""The table of scores: each photograph once, in order; kept for an evaluation to go on from."""

import numpy as np
import pytest

from pix2pix.errors import UserError
from pix2pix.evaluation import scores as module
from pix2pix.evaluation.scores import Scores, ScoreStore


def table(*positions: int) -> Scores:
    rows = np.array(positions)
    return Scores(rows, {"run/psnr": rows / 2, "truth/features": np.stack([rows, -rows], axis=1)})


def test_joined_tables_hold_each_photograph_once_in_order():
    joined = Scores.join([table(4, 0), Scores.join([]), table(2), table(0, 7)])
    assert joined.positions.tolist() == [0, 2, 4, 7]
    assert joined.columns["run/psnr"].tolist() == [0, 1, 2, 3.5]
    assert joined.of("truth")["features"].tolist() == [[0, 0], [2, -2], [4, -4], [7, -7]]
    assert list(joined.of("run")) == ["psnr"]


def test_rows_come_back_to_whoever_evaluates_the_same(tmp_path):
    report = tmp_path / "report.json"
    for part in (table(3, 1), table(2)):  # of two ranks
        with ScoreStore(report, "same") as store:
            store.add(part)
    again = ScoreStore(report, "same")
    found = again.load()
    assert found.positions.tolist() == [1, 2, 3]
    assert found.columns["truth/features"].tolist() == [[1, -1], [2, -2], [3, -3]]
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_evaluation_are_not_taken_and_go(tmp_path):
    report = tmp_path / "report.json"
    with ScoreStore(report, "another") as store:
        store.add(table(1))
    assert len(ScoreStore(report, "mine").load().positions) == 0
    assert len(ScoreStore(report, "another").load().positions) == 0


def test_an_exception_leaves_what_is_done_and_time_saves_it_before(tmp_path, monkeypatch):
    report = tmp_path / "report.json"
    store = ScoreStore(report, "same")
    store.add(table(5))
    assert len(ScoreStore(report, "same").load().positions) == 0
    with pytest.raises(KeyboardInterrupt), store:
        raise KeyboardInterrupt
    assert ScoreStore(report, "same").load().positions.tolist() == [5]
    monkeypatch.setattr(module, "SAVE_EVERY_SECONDS", 0.0)
    ScoreStore(report, "same").add(table(6))
    assert ScoreStore(report, "same").load().positions.tolist() == [5, 6]


def test_a_damaged_file_is_a_clear_error(tmp_path):
    report = tmp_path / "report.json"
    with ScoreStore(report, "same") as store:
        store.add(table(1))
    (path,) = (tmp_path / ".report.json.partial").glob("*/*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="remove that folder and run again"):
        ScoreStore(report, "same").load()


def test_where_nothing_can_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = ScoreStore(tmp_path / "file" / "report.json", "same")
    store.add(table(1))
    with pytest.raises(UserError, match="can't write into"):
        store.save()
