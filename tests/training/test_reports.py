"""Promises of sample pictures: what they show, and that a training never ends because of them."""

import contextlib
import io
import shutil

import pytest
import torch

from pix2pix.data.batches import EvaluationBatches
from pix2pix.data.data_set import open_data
from pix2pix.data.reader import ShardReader
from pix2pix.errors import UserError
from pix2pix.run.state import build_state
from pix2pix.training.reports import sample_sheet
from tests.ranks import run_ranks
from tests.small_training import error_of, fit, tensor_digests, tiny_config


def reader_of(shards):
    return ShardReader(open_data([str(shards)], "val", 64), 64)


def copy_with_broken_val(source, target):
    """The same shards, but no picture of the val split can be decoded."""
    shutil.copytree(source, target)
    for path in target.glob("val*.tar"):
        path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff\xe0", b"\0\0\0\0"))
    return target


def test_a_sheet_shows_gray_colorized_and_true_and_changes_nothing(tiny_shards, tmp_path):
    config, reader = tiny_config(tiny_shards, tmp_path, ema_decay=0.0), reader_of(tiny_shards)
    state = build_state(config, torch.device("cpu"))
    state.generator.train()
    before = tensor_digests(state.state_dict())
    sheet = sample_sheet(reader, config, state, torch.device("cpu"))
    assert sheet.shape == (7, 3, 3, 64, 64)  # all of the split
    gray, colorized, true = sheet.unbind(dim=1)
    batch = EvaluationBatches(reader, 0, 1, 7)[0]
    wanted = torch.nn.functional.interpolate(
        batch.color.float(), (64, 64), mode="bilinear", antialias=True
    )
    assert (255 * true - wanted).abs().max() <= 0.5 + 1e-3  # pixels are rounded
    assert torch.equal(gray[:, 0], gray[:, 1])
    assert torch.equal(gray[:, 0], gray[:, 2])
    assert 0 <= colorized.min() <= colorized.max() <= 1
    assert not torch.equal(colorized, gray)
    assert torch.equal(sheet, sample_sheet(reader, config, state, torch.device("cpu")))
    assert tensor_digests(state.state_dict()) == before
    assert state.generator.training


def test_a_sheet_of_broken_photographs_is_an_error_that_names_one(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run")
    broken = reader_of(copy_with_broken_val(tiny_shards, tmp_path / "shards"))
    state = build_state(config, torch.device("cpu"))
    with pytest.raises(UserError, match="broken sample val-000000"):
        sample_sheet(broken, config, state, torch.device("cpu"))


def end_and_output(config):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        end = error_of(lambda: fit(config))
    return end, " ".join(said.getvalue().split())


def test_pictures_that_cannot_be_drawn_cost_a_line_and_the_training_goes_on(tiny_shards, tmp_path):
    shards = copy_with_broken_val(tiny_shards, tmp_path / "shards")
    config = tiny_config(shards, tmp_path / "run", sample_every=2)
    ((end, output),) = run_ranks(end_and_output, 1, config)
    assert "no sample pictures at step 2: broken sample val-000000" in output
    assert "no sample pictures at step 4: broken sample val-000000" in output  # it went on
    assert "broken sample val-000000" in end  # the evaluation at the end needs them
