import pytest
import torch
from torch import nn

from pix2pix.errors import UserError
from pix2pix.model.networks import (
    NORMS,
    PatchDiscriminator,
    UNetGenerator,
    initialize,
)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "parameters"),
    [(1, 3, 54_411_907), (1, 2, 54_409_858), (3, 3, 54_413_955)],
)
@pytest.mark.parametrize("norm", ["batch", "sync_batch"])
def test_generator_has_the_published_number_of_parameters(
    in_channels, out_channels, parameters, norm
):
    with torch.device("meta"):
        assert count(UNetGenerator(in_channels, out_channels, norm=norm)) == parameters


@pytest.mark.parametrize(
    ("in_channels", "parameters"), [(3, 2_765_633), (4, 2_766_657), (6, 2_768_705)]
)
@pytest.mark.parametrize("norm", ["batch", "sync_batch"])
def test_discriminator_has_the_published_number_of_parameters(in_channels, parameters, norm):
    with torch.device("meta"):
        assert count(PatchDiscriminator(in_channels, norm=norm)) == parameters


def test_instance_norm_is_not_affine_so_convolutions_have_biases():
    with torch.device("meta"):
        generator = UNetGenerator(1, 2, norm="instance")
        discriminator = PatchDiscriminator(3, norm="instance")
    for network in (generator, discriminator):
        assert all(name.endswith(("weight", "bias")) for name in network.state_dict())
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                assert layer.bias is not None
            if isinstance(layer, nn.InstanceNorm2d):
                assert layer.weight is None


@pytest.mark.parametrize("size", [64, 128, 256, 512])
@pytest.mark.parametrize("norm", NORMS)
def test_generator_keeps_the_size_and_stays_in_range(size, norm):
    generator = UNetGenerator(1, 2, image_size=size, width=2, norm=norm)
    output = generator(torch.rand(1, 1, size, size) * 2 - 1)  # one photograph, in train mode
    assert output.shape == (1, 2, size, size)
    assert output.abs().max() <= 1


def test_generator_in_eval_mode_takes_any_multiple_of_its_size():
    generator = UNetGenerator(1, 3, image_size=64, width=2).eval()
    assert generator(torch.zeros(2, 1, 64, 192)).shape == (2, 3, 64, 192)


@pytest.mark.parametrize(("size", "levels"), [(64, 6), (128, 7), (256, 8), (512, 9)])
def test_generator_reaches_a_1x1_bottom(size, levels):
    generator = UNetGenerator(1, 2, image_size=size, width=2)
    shapes = []
    generator.bottom[1].register_forward_hook(lambda *call: shapes.append(call[-1].shape))
    generator(torch.zeros(1, 1, size, size))
    assert shapes == [(1, 16, 1, 1)]
    assert sum(isinstance(layer, nn.Conv2d) for layer in generator.modules()) == levels


def test_every_up_block_reads_the_down_block_of_its_size():
    generator = UNetGenerator(1, 2, image_size=64, width=2).eval()
    initialize(generator, seeded())
    skips, inputs = [], []
    for down, up in zip(generator.down, generator.up, strict=True):
        # Copies: the activations are in place. append returns None, so a hook changes nothing.
        down.register_forward_hook(lambda _, __, output: skips.append(output.clone()))
        up.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))
    generator(torch.rand(1, 1, 64, 64, generator=seeded()))
    assert [skip.shape[-1] for skip in skips] == [32, 16, 8, 4, 2]
    for skip, read in zip(reversed(skips), inputs, strict=True):
        assert skip.any()
        assert read.shape[1] == 2 * skip.shape[1]
        assert torch.equal(read[:, : skip.shape[1]], skip)


@pytest.mark.parametrize(("size", "blocks"), [(64, 1), (128, 2), (256, 3), (512, 3)])
def test_dropout_follows_the_innermost_up_block(size, blocks):
    with torch.device("meta"):
        generator = UNetGenerator(1, 2, image_size=size)
        without = UNetGenerator(1, 2, image_size=size, dropout=False)
    has_dropout = [
        any(isinstance(layer, nn.Dropout) and layer.p == 0.5 for layer in block)
        for block in generator.up
    ]
    assert has_dropout == [True] * blocks + [False] * (len(generator.up) - blocks)
    assert not any(
        isinstance(layer, nn.Dropout) for layer in [*generator.bottom, *without.modules()]
    )


@pytest.mark.parametrize("norm", NORMS)
def test_discriminator_gives_30x30_logits_at_256_px(norm):
    discriminator = PatchDiscriminator(3, width=2, norm=norm)
    logits = discriminator(torch.rand(1, 1, 256, 256), torch.rand(1, 2, 256, 256))
    assert logits.shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_one_logit_sees_exactly_its_receptive_field(layers, side):
    # No norm: its statistics would let a logit see the whole picture.
    discriminator = PatchDiscriminator(2, width=2, num_layers=layers)
    initialize(discriminator, seeded())
    discriminator.layers = nn.Sequential(
        *(layer for layer in discriminator.layers if not isinstance(layer, nn.BatchNorm2d))
    )
    image = torch.rand(1, 1, 256, 256, generator=seeded(), requires_grad=True)
    logits = discriminator(torch.zeros(1, 1, 256, 256), image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(dim=1)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (side, side)


@pytest.mark.parametrize("norm", NORMS)
def test_discriminator_keeps_no_running_statistics(norm):
    discriminator = PatchDiscriminator(3, width=2, norm=norm)
    assert not list(discriminator.buffers())
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    discriminator(torch.rand(2, 1, 64, 64), torch.rand(2, 2, 64, 64))
    after = discriminator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batch_and_sync_batch_norm_load_each_others_weights():
    for build in (
        lambda norm: UNetGenerator(1, 2, image_size=64, width=2, norm=norm),
        lambda norm: PatchDiscriminator(3, width=2, norm=norm),
    ):
        batch, sync_batch = build("batch"), build("sync_batch")
        assert list(batch.state_dict()) == list(sync_batch.state_dict())
        sync_batch.load_state_dict(batch.state_dict())
        assert any(isinstance(layer, nn.SyncBatchNorm) for layer in sync_batch.modules())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("build", ["generator", "discriminator"])
def test_weights_are_drawn_as_published(build, norm):
    network = (
        UNetGenerator(1, 2, image_size=64, width=16, norm=norm)
        if build == "generator"
        else PatchDiscriminator(3, width=16, norm=norm)
    )
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7)
    initialize(network, seeded())
    convolutions, scales = [], []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            convolutions.append(layer.weight.flatten())
        elif isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
            scales.append(layer.weight)
        if getattr(layer, "bias", None) is not None:
            assert not layer.bias.any()
    weights = torch.cat(convolutions)
    assert weights.mean().item() == pytest.approx(0, abs=2e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert bool(scales) == (norm != "instance")
    if scales:
        assert torch.cat(scales).mean().item() == pytest.approx(1, abs=5e-3)
        assert torch.cat(scales).std().item() == pytest.approx(0.02, rel=0.15)


def test_same_seed_gives_the_same_weights_whatever_else_was_drawn():
    first = UNetGenerator(1, 2, image_size=64, width=2)
    initialize(first, seeded(3))
    torch.rand(5)
    second = UNetGenerator(1, 2, image_size=64, width=2).to(memory_format=torch.channels_last)
    initialize(second, seeded(3))
    other = UNetGenerator(1, 2, image_size=64, width=2)
    initialize(other, seeded(4))
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_channels_last_gives_the_same_pictures_and_gradients():
    condition = torch.rand(2, 1, 64, 64, generator=seeded()) * 2 - 1
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        generator = UNetGenerator(1, 2, image_size=64, width=4, dropout=False)
        discriminator = PatchDiscriminator(3, width=4)
        for network in (generator, discriminator):
            initialize(network, seeded(1))
            network.to(memory_format=memory_format)
        output = generator(condition.to(memory_format=memory_format))
        logits = discriminator(condition.to(memory_format=memory_format), output)
        logits.mean().backward()
        results.append((output, logits, generator.down[0].weight.grad))
    for plain, channels_last in zip(*results, strict=True):
        torch.testing.assert_close(plain, channels_last, rtol=1e-4, atol=1e-5)


def test_gradients_lie_together_where_a_skip_joins():
    # Batch norm's backward pass of a slice takes several times as long on a CPU.
    generator = UNetGenerator(1, 2, image_size=64, width=4).to(memory_format=torch.channels_last)
    seen = []

    def look(module, inputs, output):
        output.register_hook(
            lambda gradient: seen.append(gradient.is_contiguous(memory_format=torch.channels_last))
        )

    for block in [*generator.down, *generator.up[:-1]]:
        block.register_forward_hook(look)
    generator(torch.rand(2, 1, 64, 64)).sum().backward()
    assert len(seen) == len(generator.down) + len(generator.up) - 1
    assert all(seen)


@pytest.mark.parametrize(
    "build",
    [
        lambda: UNetGenerator(1, 2, image_size=300),
        lambda: UNetGenerator(1, 2, image_size=32),
        lambda: UNetGenerator(1, 2, image_size=64, width=2, norm="layer"),
        lambda: PatchDiscriminator(3, width=2, norm="layer"),
    ],
)
def test_impossible_network_is_a_user_error_that_names_the_choices(build):
    with pytest.raises(UserError, match=r"use one of .*(64|batch)"):
        build()
