"""Promises of the run directory: it belongs to one training, and says what changed."""

import dataclasses
import json

import pytest

from pix2pix.config import IDENTITY_FIELDS, TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.run_directory import RunDirectory, config_hash
from tests.small_training import tiny_config


def test_it_holds_the_whole_configuration_and_the_versions(tmp_path):
    config = tiny_config(tmp_path / "shards", tmp_path / "run", learning_rate=3e-4)
    run = RunDirectory(tmp_path / "run")
    assert run.claim(config, "digest") == []
    assert run.read_config() == config
    content = json.loads(run.config_file.read_text())
    assert {"python", "torch", "torchvision", "accelerate"} <= content["versions"].keys()
    assert content["shards_digest"] == "digest"


def test_free_fields_may_change_and_the_change_is_told_once(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.claim(tiny_config(tmp_path / "shards", tmp_path / "run"), "digest")
    longer = tiny_config(tmp_path / "shards", tmp_path / "run", total_steps=8)
    assert run.claim(longer, "digest") == ["total_steps: 4 → 8"]
    assert run.claim(longer, "digest") == []


def test_other_photographs_are_another_training(tmp_path):
    run = RunDirectory(tmp_path / "run")
    config = tiny_config(tmp_path / "shards", tmp_path / "run")
    run.claim(config, "digest")
    run.metrics_file.write_text('{"step": 1}\n')
    before = run.config_file.read_bytes()
    with pytest.raises(UserError, match="the train split has other photographs"):
        run.claim(config, "other")
    assert run.config_file.read_bytes() == before


@pytest.mark.parametrize("begun", ["metrics.jsonl", "checkpoints/step_000000001"])
def test_a_start_that_failed_before_its_first_step_does_not_bind_the_next(tmp_path, begun):
    run = RunDirectory(tmp_path / "run")
    run.claim(tiny_config(tmp_path / "shards", run.root, seed=1), "digest")
    run.checkpoints.mkdir()
    other = tiny_config(tmp_path / "shards", run.root, seed=2)
    assert run.claim(other, "other digest") == ["everything: no step was trained here yet"]
    assert run.read_config() == other
    (run.root / begun).parent.mkdir(exist_ok=True)
    (run.root / begun).write_text("{}")
    with pytest.raises(UserError, match="seed: 2 there, 1 here"):
        run.claim(tiny_config(tmp_path / "shards", run.root, seed=1), "other digest")


def test_a_moved_run_goes_on(tmp_path):
    config = tiny_config(tmp_path / "shards", tmp_path / "old")
    RunDirectory(tmp_path / "old").claim(config, "digest")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = tiny_config(tmp_path / "shards", tmp_path / "new")
    assert RunDirectory(tmp_path / "new").claim(moved, "digest") == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": 3}'])
def test_a_damaged_config_is_a_clear_error(tmp_path, content):
    run = RunDirectory(tmp_path)
    run.config_file.write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        run.read_config()
    with pytest.raises(UserError, match=r"config\.json"):
        run.claim(tiny_config(tmp_path / "shards", tmp_path), "digest")


def test_a_folder_that_can_not_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    run = RunDirectory(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="can't write to run_dir"):
        run.claim(tiny_config(tmp_path / "shards", run.root), "digest")


def test_a_directory_with_nothing_but_a_submission_in_it_is_free(tmp_path):
    run = RunDirectory(tmp_path / "run")
    config = tiny_config(tmp_path / "shards", run.root)
    for folder in (run.snapshots, run.jobs):
        folder.mkdir(parents=True)
    assert run.check(config, "digest") == []
    (run.root / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a run directory"):
        run.check(config, "digest")
    (run.root / "notes.txt").unlink()
    assert run.claim(config, "digest") == []


def test_the_newest_step_is_read_from_the_names_of_checkpoints(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.newest_step() == 0
    for name in ("step_000000004", "step_000000012", ".step_000000020.partial"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.newest_step() == 12


def test_config_hash_is_the_identity_and_nothing_else(tmp_path):
    config = tiny_config(tmp_path, tmp_path / "run", l1_weight=10.0)
    mine = config_hash(config, "digest")
    same = dataclasses.replace(config, total_steps=9, num_workers=3, l1_weight=10)
    assert config_hash(same, "digest") == mine
    others = [dataclasses.replace(config, seed=1), dataclasses.replace(config, dropout=False)]
    hashes = {mine, config_hash(config, "other"), *(config_hash(o, "digest") for o in others)}
    assert len(hashes) == 4


def test_an_identity_field_at_its_first_value_leaves_the_hash_as_it_was(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, tmp_path / "run", gan_loss="bce")
    now = config_hash(config, "digest")
    fields = {name: v for name, v in IDENTITY_FIELDS.items() if name != "gan_loss"}
    monkeypatch.setattr("pix2pix.config.IDENTITY_FIELDS", fields)  # of an earlier version
    assert config_hash(config, "digest") == now


def test_the_hash_of_a_configuration_is_the_same_in_every_version(tmp_path):
    """A checkpoint of an earlier version says whose it is, whatever the defaults are now."""
    first = {"shards": (str(tmp_path),), "run_dir": tmp_path} | IDENTITY_FIELDS
    assert config_hash(TrainConfig(**first), "digest") == "cff4ce7afb860c0a"
    other = TrainConfig(**first | {"learning_rate": 4e-4, "gan_loss": "hinge"})
    assert config_hash(other, "digest") == "08f17b9570c00db4"
