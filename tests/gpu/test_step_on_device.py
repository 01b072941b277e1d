"""Promises of a step on each device: nothing is read back, nothing stands still, numbers agree."""

import copy
import gc
import weakref

import pytest
import torch

from pix2pix.data.batches import TrainMicroBatches
from pix2pix.data.data_set import open_data
from pix2pix.data.reader import ShardReader
from pix2pix.data.stream import BatchStream
from pix2pix.run.checkpoint_share import Staging, leaves
from tests.devices import DEVICES, no_reading_back
from tests.small_training import tiny_config
from tests.training.test_step import batch_of, build, lower_scales, parts, weights


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_step_reads_nothing_back_from_the_device(device, precision):
    _, state, step = build(precision, device=device, ema_decay=0.9)
    lower_scales(state)
    batch = batch_of().to(torch.device(device))
    for _ in range(2):  # optimizers and scalers make their state, libraries choose their kernels
        step([batch])
    with no_reading_back(device):
        step([batch])
        step([batch])
    assert state.step == 4


# A CPU captures graphs and their gradients without a compiler, which would take minutes.
BACKENDS = [
    ("cpu", {"backend": "aot_eager"}),
    pytest.param("cuda", {"mode": "default"}, marks=pytest.mark.gpu),
    pytest.param("cuda", {"mode": "reduce-overhead"}, marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("device", "how"), BACKENDS, ids=str)
def test_every_parameter_moves_when_compiled_and_losses_are_those_of_eager(device, how):
    torch.compiler.reset()
    precision = "bf16" if device == "cuda" else "no"
    _, state, step = build(precision, device=device, dropout=False)
    _, _, plain_step = build(precision, device=device, dropout=False)
    state.generator.compile(**how)
    state.discriminator.compile(**how)
    before = {name: weights(network) for name, network in state.networks().items()}
    batch = batch_of().to(torch.device(device))
    for _ in range(4):  # CUDA graphs are recorded in the second step and the third
        metrics, plain = step([batch]), plain_step([batch])
    for name, network in state.networks().items():
        for parameter, value in network.named_parameters():
            assert not torch.equal(value, before[name][parameter]), f"{name}.{parameter}"
    names = ("discriminator_loss", "generator_adversarial", "generator_l1")
    mine, theirs = ([getattr(told, name).item() for name in names] for told in (metrics, plain))
    assert mine == pytest.approx(theirs, rel=0.05 if precision == "bf16" else 1e-3)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("device", DEVICES)
def test_batches_arrive_whole_while_the_device_is_busy(tiny_shards, tmp_path, device, num_workers):
    """On a GPU they are copied on a side stream, from pinned memory that is used again."""
    where = torch.device(device)
    reader = ShardReader(open_data([str(tiny_shards)], "train", 64), 64)
    batches = TrainMicroBatches(reader, tiny_config(tiny_shards, tmp_path), rank=0, world_size=1)
    busy, kept = torch.ones(1024, 1024, device=where) / 1024, []
    with BatchStream(batches, range(12), where, num_workers, look_ahead=2) as stream:
        for _ in range(12):
            batch = stream.next()
            if device == "cuda":
                for _ in range(100):  # the copies must wait for nobody, and nobody for them
                    busy = busy @ busy
            kept.append((batch.gray.clone(), batch.color.clone(), batch.flip.clone()))
            assert batch.color.device.type == device
    for number, (gray, color, flip) in enumerate(kept):
        expected = batches[number]
        assert torch.equal(gray.cpu(), expected.gray)
        assert torch.equal(color.cpu(), expected.color)
        assert torch.equal(flip.cpu(), expected.flip)


@pytest.mark.parametrize("device", DEVICES)
def test_a_save_copies_what_the_step_left_into_memory_that_is_kept(device):
    """On a GPU it is pinned: other memory receives at half the speed, and not beside a step."""
    _, state, step = build(device=device)
    batch, staging = batch_of().to(torch.device(device)), Staging()
    step([batch])
    expected = {
        name: leaf.to("cpu", copy=True)
        for name, leaf in leaves(state.state_dict())
        if isinstance(leaf, torch.Tensor)
    }
    copied = dict(leaves(staging.copy(state.state_dict(), 0, 1)))
    step([batch])  # what is copied stays as it was
    assert len(expected) > 100
    for name, value in expected.items():
        assert torch.equal(copied[name], value), name
    on_device = [n for n, leaf in leaves(state.state_dict()) if getattr(leaf, "is_cuda", False)]
    assert bool(on_device) is (device == "cuda")
    assert all(copied[name].is_pinned() for name in on_device)
    again = dict(leaves(staging.copy(state.state_dict(), 0, 1)))
    assert all(again[name].data_ptr() == copied[name].data_ptr() for name in expected)


@pytest.mark.parametrize("device", DEVICES)
def test_memory_is_free_when_a_step_is_gone(device):
    def held_after_a_step() -> tuple[list, int]:
        _, state, step = build(device=device, generator_width=16)
        step([batch_of().to(torch.device(device))])
        left = [weakref.ref(parameter) for parameter in state.generator.parameters()]
        del state, step
        gc.collect()
        return left, torch.cuda.memory_allocated() if device == "cuda" else 0

    _, before = held_after_a_step()  # libraries keep a workspace from then on
    left, after = held_after_a_step()
    assert len(left) > 10
    assert not any(reference() is not None for reference in left)
    assert after == before


@pytest.mark.parametrize("device", DEVICES)
def test_convolutions_in_32_bits_are_those_of_the_cpu_without_tf32(device):
    """TF32 has 10 bits of mantissa; switched off, a GPU computes as the CPU does."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        _, state, step = build(device=device, dropout=False)
        plain = copy.deepcopy(state.generator).cpu()
        _, (fake,) = parts(state, step, batch_of().to(torch.device(device)))
        pairs, _ = parts(*build(dropout=False)[1:], batch_of())
        torch.testing.assert_close(fake.cpu(), plain(pairs[0][0]), rtol=1e-3, atol=1e-4)
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
