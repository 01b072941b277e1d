"""Promises of a generator on a pretrained encoder: shapes, refusals, and whose weights it has."""

import pytest
import torch
from torch import nn

from pix2pix.errors import UserError
from pix2pix.model import encoder_weights
from pix2pix.model.encoder import EncoderGenerator
from pix2pix.model.encoder_weights import find_weights, packaged_file
from pix2pix.model.generators import initialize_generator, make_generator
from pix2pix.model.networks import UNetGenerator


def generator(encoder="efficientnet_lite0", image_size=64, **changes):
    torch.manual_seed(0)
    return EncoderGenerator(1, 2, encoder, image_size, **changes)


@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "resnet18", "convnext_atto"])
def test_every_kind_of_backbone_paints_pictures_of_the_right_size(encoder):
    network = generator(encoder, width=16).eval()
    painted = network(torch.rand(2, 1, 64, 96) * 2 - 1)
    assert painted.shape == (2, 2, 64, 96)
    assert painted.abs().max() <= 1


def test_it_has_a_twelfth_of_the_parameters_of_the_u_net():
    count = sum(parameter.numel() for parameter in generator().parameters())
    assert count * 12 < sum(parameter.numel() for parameter in UNetGenerator(1, 2).parameters())


def test_every_parameter_has_a_gradient():
    network = generator("efficientnet_lite0", width=16)
    network(torch.rand(2, 1, 64, 64)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_dropout_and_norm_act_in_the_decoder():
    assert any(isinstance(layer, nn.Dropout) for layer in generator().modules())
    assert not any(isinstance(layer, nn.Dropout) for layer in generator(dropout=False).up.modules())
    norms = {type(layer) for layer in generator(norm="instance").up.modules()}
    assert nn.InstanceNorm2d in norms
    assert nn.BatchNorm2d not in norms


def test_with_a_scale_the_backbone_sees_a_larger_picture_and_the_decoder_its_means():
    network = generator(width=16, scale=2).eval()
    seen = []
    network.encoder.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    painted = network(torch.rand(2, 1, 64, 96) * 2 - 1)
    assert painted.shape == (2, 2, 64, 96)
    ((large, features),) = seen
    assert large.shape == (2, 3, 128, 192)
    assert features[0].shape[-2:] == (64, 96)
    same = generator(width=16).eval()
    same.load_state_dict(network.state_dict())  # the same weights, whatever the scale


def test_depthwise_convolutions_are_computed_in_fp32_on_a_cpu_also_under_autocast():
    # In bf16 their backward takes up to 9 times as long; the step's cost would be theirs.
    depthwise = generator().get_submodule("encoder.blocks.2.0.conv_dw")
    x = torch.randn(1, 144, 16, 16).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        convolved = depthwise(x)
    in_fp32 = depthwise(x.float())
    assert convolved.dtype == torch.bfloat16
    assert torch.equal(convolved, in_fp32.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_bf16 = nn.Conv2d.forward(depthwise, x)
    assert not torch.equal(in_bf16, in_fp32.bfloat16())


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("efficientnet_lite9", "is no model of timm; did you mean efficientnet_lite0?"),
        ("vit_tiny_patch16_224", "has features of strides 16, 16, 16"),
        ("swin_tiny_patch4_window7_224", "does not take pictures of 64 px"),
    ],
)
def test_a_backbone_that_a_decoder_cannot_use_is_refused_with_the_reason(encoder, message):
    with pytest.raises(UserError, match=message):
        generator(encoder)


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match=r"needs the package timm: pip install"):
        generator()


def test_no_encoder_is_the_u_net_of_the_paper_drawn_alike():
    made = make_generator(1, 2, 64, 4, "batch", True)
    initialize_generator(made, torch.Generator().manual_seed(3))
    from pix2pix.model.networks import initialize

    plain = UNetGenerator(1, 2, 64, 4)
    initialize(plain, torch.Generator().manual_seed(3))
    assert all(
        torch.equal(a, b) for a, b in zip(made.parameters(), plain.parameters(), strict=True)
    )


def test_the_packaged_weights_are_loaded_with_their_normalization():
    weights = find_weights("efficientnet_lite0", "auto")
    network = generator()
    before = network.encoder.state_dict()["conv_stem.weight"].clone()
    weights.load_into(network)
    raw = torch.load(packaged_file("efficientnet_lite0"), weights_only=True)
    loaded = network.encoder.state_dict()["conv_stem.weight"]
    assert torch.equal(loaded, raw["_conv_stem.weight"])
    assert not torch.equal(loaded, before)
    assert weights.license == "apache-2.0"
    assert network.mean.flatten().tolist() == network.std.flatten().tolist() == [0.5, 0.5, 0.5]


def test_the_identity_is_that_of_the_values_whatever_holds_them():
    packaged = find_weights("efficientnet_lite0", "auto")
    file = find_weights("efficientnet_lite0", str(packaged_file("efficientnet_lite0")))
    assert packaged.sha256 == file.sha256


def test_weights_of_another_network_name_the_first_entry_that_differs(tmp_path):
    file = packaged_file("efficientnet_lite0")
    with pytest.raises(UserError, match=r"is not for encoder resnet18: entry conv1\.weight should"):
        find_weights("resnet18", str(file))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match=r"text\.pth holds no weights that can be read"):
        find_weights("resnet18", str(tmp_path / "text.pth"))
    with pytest.raises(UserError, match=r"there is no such file; give a file, or one of auto, hub"):
        find_weights("resnet18", str(tmp_path / "nope.pth"))


def test_a_hub_that_does_not_answer_is_one_error(monkeypatch):
    def refuse(name, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr(encoder_weights, "create_backbone", refuse)
    with pytest.raises(UserError, match=r"can't be had from timm's hub \(Name or service"):
        find_weights("resnet18", "auto")
