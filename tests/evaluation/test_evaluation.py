"""Promises of the evaluation: every photograph once, the same figures on any number of ranks."""

import shutil

import numpy as np
import pytest
import torch

from pix2pix.data.data_set import open_data
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.evaluation.baselines import leave_gray
from pix2pix.evaluation.evaluation import METRICS, Scores, evaluate, evaluation_mode
from pix2pix.evaluation.metrics import photo_metrics
from pix2pix.evaluation.report import report_table, write_report
from pix2pix.evaluation.run_evaluation import measure_run
from pix2pix.run.distributed import Distributed
from tests.ranks import run_ranks
from tests.small_training import fit, tiny_config


@pytest.fixture(scope="module")
def run(tiny_shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("evaluated") / "run"
    run_ranks(fit, 1, tiny_config(tiny_shards, run))
    return run


def report_of(run, shards, split="val", batch_size=2):
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    return measure_run(run, [str(shards)], split, distributed, batch_size, num_workers=0).report


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_any_number_of_ranks_gives_the_report_of_one(run, tiny_shards, world_size):
    # 7 photographs: 2 and 3 ranks get unequal shares, and of 8 ranks one gets none.
    alone = run_ranks(report_of, 1, run, tiny_shards)[0]
    assert alone["num_samples"] == 7
    for report in run_ranks(report_of, world_size, run, tiny_shards):
        for metric in METRICS:
            assert report[metric] == pytest.approx(alone[metric], rel=1e-5)
            assert report["gray"][metric] == pytest.approx(alone["gray"][metric], rel=1e-12)


def direct_gray_means(shards):
    from pix2pix.data.batches import EvaluationBatches, resize

    reader = ShardReader(open_data([str(shards)], "val", 64), 64)
    batch = EvaluationBatches(reader, 0, 1, 7)[0]
    gray, color = resize(batch.gray, 64), resize(batch.color, 64)
    values = photo_metrics(leave_gray(gray), color.float() / 255)
    return {name: value.mean().item() for name, value in values.items()}


def test_means_are_over_photographs_whatever_the_batch_size(tiny_shards):
    expected = run_ranks(direct_gray_means, 1, tiny_shards)[0]
    for batch_size in (1, 3, 16):
        found = run_ranks(gray_means, 1, tiny_shards, batch_size)[0]
        assert found.keys() == set(METRICS)
        assert found == pytest.approx(expected, rel=1e-12)


def gray_means(shards, batch_size):
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    reader = ShardReader(open_data([str(shards)], "val", 64), 64)
    return evaluate({"gray": leave_gray}, reader, 64, distributed, batch_size, 0)["gray"]


def test_gray_has_no_color_and_the_truth_has(run, tiny_shards):
    report = run_ranks(report_of, 1, run, tiny_shards)[0]
    assert report["gray"]["colorfulness"] == 0
    assert report["colorfulness_truth"] > 20
    assert report["gray"]["colorfulness_truth"] == report["colorfulness_truth"]


def test_report_says_by_which_conventions(run, tiny_shards):
    report = run_ranks(report_of, 1, run, tiny_shards, "train")[0]
    assert report["split"] == "train"
    assert report["num_samples"] == 24
    assert report["step"] == 4
    said = report["conventions"]
    assert {"image", "psnr", "ssim", "chroma_error", "colorfulness", "weights"} <= said.keys()
    assert "64 px" in said["image"]
    assert said["weights"] == "moving average"
    assert all(len(line) <= 80 for line in report_table(report).splitlines())


def failure_of(run, shards, split="val"):
    try:
        report_of(run, shards, split)
    except UserError as error:
        return str(error)
    return "no error"


def test_a_broken_sample_is_the_same_error_on_every_rank(run, tiny_shards, tmp_path):
    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    shard = shards / "val-000001.tar"
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8\xff\xe0", b"\0\0\0\0"))
    messages = run_ranks(failure_of, 3, run, shards)
    assert len(set(messages)) == 1
    assert "broken sample val-000001.tar/" in messages[0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("split", "no split 'test'"), ("run", "not a run directory"), ("checkpoint", "no checkpoint")],
)
def test_what_can_not_be_evaluated_is_a_clear_error(run, tiny_shards, tmp_path, kind, words):
    empty = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(empty / "checkpoints")
    where = {"split": run, "run": tmp_path, "checkpoint": empty}[kind]
    split = "test" if kind == "split" else "val"
    messages = run_ranks(failure_of, 2, where, tiny_shards, split)
    assert messages[0] == messages[1]
    assert words in messages[0]


def test_a_report_that_can_not_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write the report"):
        write_report(tmp_path / "file" / "report.json", {})


def test_evaluation_mode_gives_the_mode_back():
    dropout = torch.nn.Dropout(0.5)
    with evaluation_mode(dropout) as module:
        assert not module.training
        assert torch.equal(module(torch.ones(100)), torch.ones(100))
    assert dropout.training
    with pytest.raises(ZeroDivisionError), evaluation_mode(dropout):
        1 / 0  # noqa: B018
    assert dropout.training


def test_joined_rows_are_in_the_order_of_the_photographs():
    tables = []
    for positions in ([4, 0], [], [2]):  # of three ranks
        rows = np.array(positions, dtype=np.int64)
        columns = {"run/psnr": rows / 2, "truth/features": np.stack([rows, -rows], axis=1)}
        tables.append(Scores(rows, columns))
    joined = Scores.join(tables)
    assert joined.positions.tolist() == [0, 2, 4]
    assert joined.columns["run/psnr"].tolist() == [0, 1, 2]
    assert joined.of("truth")["features"].tolist() == [[0, 0], [2, -2], [4, -4]]
    assert list(joined.of("run")) == ["psnr"]
