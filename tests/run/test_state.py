"""Promises of the training state: complete, and decided by the seed alone."""

import copy

import pytest
import torch

from pix2pix.run.state import build_generator, build_state
from tests.training.test_step import CPU, batch_of, build, lower_scales, same, weights


def test_the_seed_alone_decides_the_weights():
    config, state, _ = build()
    torch.manual_seed(99)
    again = build_state(config, CPU)
    for name, network in state.networks().items():
        assert same(weights(network), again.networks()[name].state_dict())
    _, other, _ = build(seed=1)
    assert not same(weights(state.generator), other.generator.state_dict())


@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_a_loaded_state_goes_on_like_the_saved_one(precision):
    _, state, step = build(precision)
    step([batch_of(seed=0)])
    saved = copy.deepcopy(state.state_dict())
    _, loaded, loaded_step = build(precision, seed=5)
    loaded.load_state_dict(saved)
    loaded.step = state.step
    loaded_step.config = step.config  # the seed of dropout
    for seed in (1, 2):
        step([batch_of(seed=seed)])
        loaded_step([batch_of(seed=seed)])
    for name, network in state.networks().items():
        assert same(weights(network), loaded.networks()[name].state_dict()), name


def test_optimizer_state_is_restored_also_while_the_discriminator_is_frozen():
    _, state, step = build()
    step([batch_of()])
    saved = copy.deepcopy(state.state_dict())
    _, loaded, _ = build()
    loaded.discriminator.requires_grad_(False)
    loaded.load_state_dict(saved)
    moments = loaded.discriminator_optimizer.state_dict()["state"]
    assert len(moments) == len(list(loaded.discriminator.parameters()))
    assert all(entry["exp_avg"].abs().sum() > 0 for entry in moments.values())


def test_precision_may_change_between_save_and_load():
    _, state, step = build("fp16")
    lower_scales(state, 2.0**5)
    step([batch_of()])
    saved = copy.deepcopy(state.state_dict())
    _, plain, plain_step = build("no")
    plain.load_state_dict(saved)
    assert plain_step([batch_of()]).skipped_updates == 0
    _, half, half_step = build("fp16")
    half.load_state_dict(saved)
    assert half.generator_scaler.get_scale() == 2.0**5
    assert half_step([batch_of()]).skipped_updates == 0


def test_without_an_average_the_generator_itself_is_the_best():
    _, state, _ = build(ema_decay=0.0)
    assert state.eval_generator is state.generator
    assert "generator_average" not in state.state_dict()


def test_size_of_a_checkpoint_is_told_before_it_is_written():
    _, state, step = build()
    step([batch_of()])
    tensors = []

    def visit(value):
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        elif isinstance(value, dict):
            for inner in value.values():
                visit(inner)

    visit(state.state_dict())
    actual = sum(t.numel() * t.element_size() for t in tensors)
    assert state.num_bytes == pytest.approx(actual, rel=0.05)


def test_build_generator_fits_the_saved_names():
    config, state, _ = build()
    build_generator(config).load_state_dict(state.generator.state_dict())
