"""Promises of one update: who changes, who does not, and that it is the published mathematics."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss
from torch.utils._python_dispatch import TorchDispatchMode

from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch, training_view
from pix2pix.evaluation.metrics import chroma_colorfulness
from pix2pix.run.state import build_state
from pix2pix.training.step import AdversarialStep, StepMetrics
from tests.devices import DEVICES

CPU = torch.device("cpu")
VALUES = {
    "shards": ("shards",),
    "run_dir": "run",
    "image_size": 64,
    "global_batch": 4,
    "total_steps": 10,
    "decay_start": 1.0,
    "generator_width": 4,
    "discriminator_width": 4,
}


class CountOperations(TorchDispatchMode):
    """Counts what a device would have to launch: every operation but views."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        is_view = function.is_view or function.namespace != "aten"
        self.count += not is_view
        return function(*arguments, **(options or {}))


def test_a_step_at_256_px_launches_few_operations():
    # At batch 16 a GPU computes a step in some 4 ms: what the host launches is what it waits for.
    _, _, step = build(image_size=256, generator_width=4, discriminator_width=4, precision="bf16")
    batch = Batch.blank(2, 256)
    step([batch])
    with CountOperations() as operations:
        step([batch])
    assert operations.count <= 560


def batch_of(count: int = 4, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    color = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=random)
    flip = torch.arange(count) % 2 == 0
    return Batch(color[:, :1].clone(), color, flip, tuple(f"s/{i}" for i in range(count)))


def build(precision="no", rank=0, device="cpu", **changes):
    config = TrainConfig(**(VALUES | changes))
    state = build_state(config, torch.device(device), fp16=precision == "fp16")
    step = AdversarialStep(config, state, state.generator, state.discriminator, precision, rank)
    return config, state, step


def lower_scales(state, scale=2.0**6):
    """As a scaler would after some steps: at its first scale, λ = 100 overflows fp16."""
    for scaler in (state.generator_scaler, state.discriminator_scaler):
        if scaler.is_enabled():
            device = next(state.generator.parameters()).device
            scaler._lazy_init_scale_growth_tracker(device)
            scaler._scale.fill_(scale)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def parts(state, step, batch):
    """The step taken apart: generate, discriminator's backward, generator's backward."""
    pairs = [training_view(batch, step.color_space, 64)]
    return pairs, step._generate_all(pairs)


def test_generator_pass_leaves_the_discriminator_unchanged_and_without_gradients():
    _, state, step = build()
    before = weights(state.discriminator)
    step._generator_backward(*parts(state, step, batch_of()))
    assert same(before, state.discriminator.state_dict())
    assert all(p.grad is None for p in state.discriminator.parameters())
    assert all(p.grad is not None for p in state.generator.parameters())


def test_discriminator_pass_leaves_the_generator_unchanged_and_without_gradients():
    _, state, step = build()
    pairs, fakes = parts(state, step, batch_of())
    before = weights(state.generator)
    step._discriminator_backward(pairs, fakes)
    assert same(before, state.generator.state_dict())
    assert all(p.grad is None for p in state.generator.parameters())
    assert all(p.grad is not None for p in state.discriminator.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"color_space": "rgb"},
        {"norm": "instance", "gan_loss": "hinge"},
        {"gan_loss": "least_squares", "dropout": False},
        {"grad_accumulation_steps": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("device", DEVICES)
def test_every_parameter_of_both_networks_moves(changes, precision, device):
    _, state, step = build(precision, device=device, **changes)
    lower_scales(state)
    before = {name: weights(network) for name, network in state.networks().items()}
    micro_batches = [batch_of(2, seed).to(torch.device(device)) for seed in range(2)]
    whole = [batch_of().to(torch.device(device))]
    for _ in range(2):
        metrics = step(micro_batches if "grad_accumulation_steps" in changes else whole)
    assert metrics.skipped_updates == 0
    for name, network in state.networks().items():
        for parameter, value in network.named_parameters():
            assert not torch.equal(value, before[name][parameter]), f"{name}.{parameter}"


def test_every_parameter_moves_when_the_networks_are_compiled():
    # aot_eager: the graph capture and autograd of torch.compile, without its C++ compiler.
    _, state, step = build()
    state.generator.compile(backend="aot_eager")
    state.discriminator.compile(backend="aot_eager")
    _, plain_state, plain_step = build()
    before = {name: weights(network) for name, network in state.networks().items()}
    for _ in range(2):
        step([batch_of()])
        plain_step([batch_of()])
    for name, network in state.networks().items():
        for parameter, value in network.named_parameters():
            assert not torch.equal(value, before[name][parameter]), f"{name}.{parameter}"
            plain = dict(plain_state.networks()[name].named_parameters())[parameter]
            torch.testing.assert_close(value, plain, rtol=1e-3, atol=1e-4)


def classic_step(config, state, batch, color_space):
    """The published update, written plainly: D on fake and real, then G, in fp32."""
    condition, target = training_view(batch, color_space, 64)
    generator, discriminator = state.generator, state.discriminator
    g_adam = torch.optim.Adam(generator.parameters(), config.learning_rate, (config.beta1, 0.999))
    d_adam = torch.optim.Adam(discriminator.parameters(), config.learning_rate, (0.5, 0.999))
    fake = generator(condition)
    real_logits = discriminator(condition, target)
    fake_logits = discriminator(condition, fake.detach())
    d_loss = 0.5 * (
        binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
        + binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    )
    d_loss.backward()
    d_adam.step()
    logits = discriminator(condition, fake)
    adversarial = binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    l1 = l1_loss(fake, target)
    generator.zero_grad()
    (adversarial + 100 * l1).backward()
    g_adam.step()
    return d_loss, adversarial, l1


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_step_is_the_published_update(norm):
    config, state, step = build(norm=norm, dropout=False)
    plain = copy.deepcopy(state)
    metrics = step([batch_of()])
    d_loss, adversarial, l1 = classic_step(config, plain, batch_of(), step.color_space)
    torch.testing.assert_close(metrics.discriminator_loss, d_loss)
    torch.testing.assert_close(metrics.generator_adversarial, adversarial)
    torch.testing.assert_close(metrics.generator_l1, l1)
    for name in ("generator", "discriminator"):
        mine, theirs = state.networks()[name].state_dict(), plain.networks()[name].state_dict()
        for key in mine:
            if norm == "batch" or key.endswith("weight"):  # a bias before a norm has no gradient
                torch.testing.assert_close(mine[key], theirs[key], rtol=1e-4, atol=1e-6, msg=key)


def gradients(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.dim() == 4])


# bf16 has 8 bits of mantissa: its losses were off by up to 0.0007 of their size, and gradients, of
# which the discriminator's are a difference, by up to 0.14. fp16 has 11, and so
# has TF32, which convolutions in 32 bits are on a GPU by default.
@pytest.mark.parametrize(
    ("precision", "of_losses", "of_gradients"),
    [("no", 1e-5, 1e-5), ("bf16", 2e-3, 0.25), ("fp16", 1e-3, 0.06)],
)
@pytest.mark.parametrize("device", DEVICES)
def test_losses_and_gradients_are_those_of_plain_fp32(precision, of_losses, of_gradients, device):
    """Compared with the CPU's, on every device."""
    if device == "cuda" and precision == "no":
        of_losses, of_gradients = 1e-3, 0.06
    _, state, step = build(precision, device=device, dropout=False, generator_width=16)
    lower_scales(state)
    plain_generator = copy.deepcopy(state.generator).cpu()
    plain_discriminator = copy.deepcopy(state.discriminator).cpu()
    pairs, fakes = parts(state, step, batch_of().to(torch.device(device)))
    *_, d_loss = step._discriminator_backward(pairs, fakes)
    d_gradients = gradients(state.discriminator) / state.discriminator_scaler.get_scale()
    g_losses = step._generator_backward(pairs, fakes)
    g_gradients = gradients(state.generator) / state.generator_scaler.get_scale()

    condition, target = training_view(batch_of(), step.color_space, 64)
    cross_entropy = nn.BCEWithLogitsLoss()
    fake = plain_generator(condition)
    logits = plain_discriminator(condition, target)
    plain_d_loss = cross_entropy(logits, torch.ones_like(logits)) / 2
    logits = plain_discriminator(condition, fake.detach())
    plain_d_loss = plain_d_loss + cross_entropy(logits, torch.zeros_like(logits)) / 2
    plain_d_loss.backward()
    plain_d_gradients = gradients(plain_discriminator)
    logits = plain_discriminator(condition, fake)
    plain_g_losses = cross_entropy(logits, torch.ones_like(logits)), l1_loss(fake, target)
    (plain_g_losses[0] + 100 * plain_g_losses[1]).backward()

    def distance(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        return (mine.cpu() - theirs).norm() / theirs.norm()

    losses, plain_losses = torch.stack([d_loss, *g_losses]), [plain_d_loss, *plain_g_losses]
    assert distance(losses, torch.stack(plain_losses).detach()) < of_losses
    assert distance(d_gradients, plain_d_gradients) < of_gradients
    assert distance(g_gradients, gradients(plain_generator)) < of_gradients


def test_accumulated_slices_are_the_whole_batch_within_rounding():
    # Without batch statistics and dropout, where micro_batches do differ from the whole.
    whole = batch_of(4)
    halves = [
        Batch(whole.gray[s], whole.color[s], whole.flip[s], whole.keys[s])
        for s in (slice(0, 2), slice(2, 4))
    ]
    changes = {"norm": "instance", "dropout": False}
    _, state, step = build(**changes)
    _, sliced_state, sliced_step = build(grad_accumulation_steps=2, **changes)
    a, b = step([whole]), sliced_step(halves)
    torch.testing.assert_close(a.stacked(), b.stacked(), rtol=1e-4, atol=1e-5)
    for name, network in state.networks().items():
        for key, value in network.state_dict().items():
            other = sliced_state.networks()[name].state_dict()[key]
            if key.endswith("weight"):  # a bias before a norm has no gradient but rounding
                # Adam's first step is ± the learning rate: a gradient near zero may turn its sign.
                assert (value - other).abs().mean() < 1e-5, f"{name}.{key}"


def test_accumulation_counts_running_statistics_once():
    _, state, step = build(grad_accumulation_steps=2)
    step([batch_of(2, 0), batch_of(2, 1)])
    counts = [b for name, b in state.generator.named_buffers() if "num_batches" in name]
    assert counts
    assert all(count == 2 for count in counts)


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_gradient_that_is_not_finite_leaves_the_state_as_it_was(precision, device):
    _, state, step = build(precision, device=device, norm="batch", ema_decay=0.0)
    lower_scales(state)
    batch = batch_of().to(torch.device(device))
    step([batch])
    step([batch])
    before = {name: weights(network) for name, network in state.networks().items()}
    moments = copy.deepcopy(state.generator_optimizer.state_dict()["state"])
    original = step.color_space.__class__.condition
    try:
        step.color_space.__class__.condition = lambda self, gray: original(self, gray) * torch.nan
        metrics = step([batch])
    finally:
        step.color_space.__class__.condition = original
    assert metrics.skipped_updates == 2
    for name, network in state.networks().items():
        assert same(before[name], network.state_dict()), name
    after = state.generator_optimizer.state_dict()["state"]
    assert all(torch.equal(moments[i][k], after[i][k]) for i in moments for k in moments[i])
    assert step([batch]).skipped_updates == 0


@pytest.mark.parametrize("device", DEVICES)
def test_fp16_overflow_lowers_the_scale_of_that_network_only(device):
    _, state, step = build("fp16", device=device)
    lower_scales(state)
    state.generator_scaler._scale.fill_(2.0**40)
    before = weights(state.generator)
    metrics = step([batch_of().to(torch.device(device))])
    assert metrics.skipped_updates == 1
    assert state.generator_scaler.get_scale() == 2.0**39
    assert state.discriminator_scaler.get_scale() == 2.0**6
    assert same(before, state.generator.state_dict())


def test_dropout_depends_on_step_slice_and_rank_and_on_nothing_else():
    def fake(rank=0, step_number=0, part=0, disturb=0):
        _, state, step = build(rank=rank, image_size=128)
        state.step = step_number
        torch.rand(disturb)
        condition = torch.linspace(-1, 1, 128 * 128).reshape(1, 1, 128, 128)
        return step._generate(condition, part, state.generator)

    first = fake()
    assert torch.equal(first, fake(disturb=7))
    for other in (fake(rank=1), fake(step_number=1), fake(part=1)):
        assert not torch.equal(first, other)


def test_average_of_the_generator_follows_its_ramp():
    config, state, step = build(ema_decay=0.999)
    name = "down.0.weight"
    average = state.generator.state_dict()[name].clone()
    for number in range(3):
        step([batch_of()])
        decay = config.ema_decay_at(number)
        average = decay * average + (1 - decay) * state.generator.state_dict()[name]
    torch.testing.assert_close(state.ema_generator.state_dict()[name], average)


def test_learning_rate_is_that_of_the_step():
    config, state, step = build(warmup_steps=4, decay_start=0.5)
    for number in range(3):
        step([batch_of()])
        expected = config.learning_rate_at(number)
        assert state.generator_optimizer.param_groups[0]["lr"] == expected
        assert state.discriminator_optimizer.param_groups[0]["lr"] == expected


def test_warm_up_changes_nothing():
    _, state, step = build()
    before = {name: weights(network) for name, network in state.networks().items()}
    step.warm_up(batch_of())
    for name, network in state.networks().items():
        assert same(before[name], network.state_dict())
        assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("color_space", ["lab", "rgb"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_colorfulness_is_that_of_the_batch_before_and_after_painting(color_space, micro_batches):
    changes = {
        "dropout": False,
        "norm": "instance",
    }  # what is painted does not depend on micro_batches
    _, state, step = build(color_space=color_space, **changes)
    parts = [batch_of(seed=seed) for seed in range(micro_batches)]
    expected = []
    for part in parts:
        condition, target = training_view(part, step.color_space, 64)
        with torch.no_grad():
            fake = state.generator(condition)
        chroma = [step.color_space.chroma(image) for image in (fake, target)]
        expected.append([chroma_colorfulness(image).mean().item() for image in chroma])
    metrics = step(parts)
    fake, real = torch.tensor(expected).mean(dim=0)
    torch.testing.assert_close(metrics.fake_colorfulness, fake, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(metrics.real_colorfulness, real, rtol=1e-4, atol=1e-5)


def test_metrics_stack_in_the_order_of_their_names():
    values = {name: torch.tensor(float(i)) for i, name in enumerate(StepMetrics.names())}
    assert StepMetrics(**values).stacked().tolist() == list(range(len(values)))
