"""Sides of a ratio take turns, and the benchmark of the step gives what DESIGN promises."""

from functools import partial

import pytest
import torch

from pix2pix.benchmark import step
from pix2pix.benchmark.classic import ClassicStep
from pix2pix.benchmark.memory import kept_bytes, saved_bytes_per_photograph
from pix2pix.benchmark.options import StepOptions
from pix2pix.benchmark.rounds import Timing, take_turns
from pix2pix.run.distributed import Distributed

CPU = torch.device("cpu")


def test_sides_take_turns_after_a_call_that_does_not_count():
    calls = []
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = take_turns(sides, CPU, rounds=3, seconds_per_turn=1e-9)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_a_timing_is_told_by_its_median_and_spread():
    timing = Timing((1.0, 4.0, 2.0))
    assert (timing.median, timing.spread) == (2.0, 1.5)


def test_the_classic_step_trains_both_networks():
    classic = ClassicStep(image_size=64, batch_size=2, width=4, device=CPU)
    networks = (classic.generator, classic.discriminator)
    before = [p.clone() for network in networks for p in network.parameters()]
    classic()
    after = [p for network in networks for p in network.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_step_benchmark_compares_at_the_best_classic_batch():
    options = StepOptions(
        batch_size=2,
        image_size=64,
        width=4,
        rounds=1,
        seconds_per_turn=0.01,
        classic_batches=(1, 3),
    )
    figures = step.measure(options, Distributed(num_threads=1))
    speedup = figures["samples_per_second"] / figures["classic_samples_per_second"]
    assert figures["speedup"] == pytest.approx(speedup)
    assert figures["classic_batch_size"] in (1, 3)


def test_an_encoder_is_measured_beside_the_u_net():
    options = StepOptions(
        batch_size=1,
        image_size=64,
        width=4,
        rounds=1,
        seconds_per_turn=0.01,
        encoder="efficientnet_lite0",
    )
    figures = step.measure(options, Distributed(num_threads=1))
    for part in ("generator", "step"):
        ratio = figures[f"unet_{part}_seconds"] / figures[f"encoder_{part}_seconds"]
        assert figures[f"{part}_speedup_over_unet"] == pytest.approx(ratio)
    kept = figures["encoder_saved_bytes_per_photograph"]
    assert kept == figures["saved_bytes_per_photograph"] > figures["unet_parameters"]
    in_8, in_16 = (figures[f"encoder_batch_in_{gib}_gib"] for gib in (8, 16))
    assert (in_16 - in_8) * kept == pytest.approx(2**33, abs=kept)
    assert in_8 * kept < 2**33
    assert figures["recompute_saved_bytes_per_photograph"] < kept
    assert figures["recompute_batch_in_8_gib"] > in_8


@pytest.mark.parametrize("faster", ["linear layer", "1×1 convolution"])
def test_the_step_is_held_against_the_faster_of_two_libraries(monkeypatch, faster):
    def timings(sides, *options):
        return {name: Timing((0.5 if name == faster else 1.0,)) for name in sides}

    monkeypatch.setattr(step, "take_turns", timings)
    options = StepOptions(batch_size=2, image_size=64, width=4)
    figures = step.measure(options, Distributed(num_threads=1))
    assert figures["matmul_by"] == faster
    assert figures["matmul_flops_per_second"] == 2 * step.MATRIX_SIDE["cpu"] ** 3 / 0.5
    assert figures["utilization"] == pytest.approx(
        figures["flops_per_second"] / figures["matmul_flops_per_second"]
    )


def test_both_libraries_compute_the_same_product():
    products, operations = step.matmuls(CPU, torch.float32)
    results = [product() for product in products.values()]
    linear, convolution = (torch.as_tensor(result) for result in results)
    side = linear.shape[0]
    assert operations == 2 * side**3
    torch.testing.assert_close(
        convolution.permute(0, 2, 3, 1).reshape(side, side), linear, rtol=1e-3, atol=1e-2
    )


def test_what_autograd_keeps_is_counted_once_and_until_it_is_let_go():
    weight = torch.ones(1000, requires_grad=True)

    def step() -> None:
        for _ in range(3):  # one after another: never two at once
            scaled = weight * torch.ones(1000)  # keeps the factor
            (scaled * scaled).sum().backward()  # keeps `scaled`, twice

    assert kept_bytes(step) == 2 * weight.nbytes


def test_a_photograph_takes_as_much_more_in_every_batch_and_less_in_bf16():
    def build(batch_size: int, precision: str = "no"):
        options = StepOptions(batch_size=batch_size, image_size=64, width=4)
        return step.our_step(options, precision, CPU)

    one = saved_bytes_per_photograph(build)
    assert kept_bytes(build(5)) - kept_bytes(build(3)) == pytest.approx(2 * one, rel=0.01)
    assert 0.5 < saved_bytes_per_photograph(partial(build, precision="bf16")) / one < 0.8


def test_a_step_counts_the_operations_of_both_networks():
    def flops(batch_size: int) -> int:
        options = StepOptions(batch_size=batch_size, image_size=64, width=4)
        return step.flops_of(step.our_step(options, "no", CPU))

    assert flops(2) > 0
    assert flops(4) == pytest.approx(2 * flops(2), rel=0.01)
