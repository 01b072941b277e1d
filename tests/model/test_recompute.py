"""Recomputation: the same bits, the running statistics moved once, and less memory."""

import copy

import pytest
import torch
from torch import nn

from pix2pix.benchmark.memory import kept_bytes
from pix2pix.errors import UserError
from pix2pix.model.encoder import EncoderGenerator
from pix2pix.model.recompute import blocks_of, recompute


def generator(encoder):
    torch.manual_seed(0)
    return EncoderGenerator(1, 2, encoder, image_size=64, width=4, dropout=False)


def forward_and_backward(network, precision):
    torch.manual_seed(1)
    gray = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        painted = network(gray)
    painted.float().square().mean().backward()


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "resnet18", "convnext_atto"])
def test_gradients_and_running_statistics_are_the_same_to_the_bit(encoder, precision):
    plain = generator(encoder)
    again = copy.deepcopy(plain)
    recompute(again.encoder)
    for network in (plain, again):
        forward_and_backward(network, precision)
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "resnet18", "convnext_atto"])
def test_autograd_keeps_less(encoder):
    plain = generator(encoder)
    again = copy.deepcopy(plain)
    recompute(again.encoder)
    kept = kept_bytes(lambda: forward_and_backward(plain, "no"))
    assert kept_bytes(lambda: forward_and_backward(again, "no")) < 0.9 * kept


def test_names_of_weights_and_a_copy_stay_as_they_were():
    network = generator("efficientnet_lite0")
    names = list(network.state_dict())
    recompute(network.encoder)
    assert list(network.state_dict()) == names


def test_a_network_without_blocks_is_refused():
    with pytest.raises(UserError, match="would save nothing"):
        recompute(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))


def test_blocks_are_the_outermost_modules_of_several_layers():
    network = generator("resnet18")
    names = {id(module): name for name, module in network.named_modules()}
    found = [names[id(block)] for block in blocks_of(network.encoder)]
    assert found == [f"encoder.layer{level}.{block}" for level in range(1, 5) for block in (0, 1)]
