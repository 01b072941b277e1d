"""Promises about precision: the device's own, the launcher's or the flag's, and who said so.

torch.cuda is patched where a GPU is needed.
"""

import pytest
import torch

from pix2pix.training.precision import choose_precision, default_precision, price

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("abilities", "precision"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "avx512_f": True}, "no"),
        ({"neon": True, "bf16": True}, "no"),  # ARM: not measured
    ],
)
def test_a_cpu_trains_in_bf16_if_its_processor_multiplies_it(monkeypatch, abilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert default_precision(CPU) == precision


def test_a_torch_that_does_not_know_the_processor_trains_in_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert default_precision(CPU) == "no"


@pytest.fixture
def gpu(monkeypatch, request):
    """A GPU that multiplies bf16 (H100), or one that only emulates it (T4)."""

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or request.param == "H100"

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    return request.param


@pytest.mark.parametrize("gpu", ["H100", "T4"], indirect=True)
def test_a_gpu_that_only_emulates_bf16_trains_in_fp16(gpu):
    assert default_precision(GPU) == ("bf16" if gpu == "H100" else "fp16")
    said = price("bf16", GPU)
    assert (said is None) == (gpu == "H100")
    assert said is None or "several times slower" in said
    assert price("fp16", GPU) is None
    assert "without TF32" in price("no", GPU)


def test_bf16_that_a_cpu_emulates_has_its_price(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert "28 times slower" in price("bf16", CPU)
    assert price("no", CPU) is None
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert price("bf16", CPU) is None


@pytest.mark.parametrize("gpu", ["H100"], indirect=True)
@pytest.mark.parametrize(
    ("wanted", "told", "line"),
    [
        (None, None, "precision bf16 (this GPU's default)"),
        (
            None,
            "no",
            "precision bf16 (this GPU's default; accelerate's \"no\" does not change it, "
            "--precision no does)",
        ),
        ("bf16", "bf16", "precision bf16 (from accelerate launch)"),
        ("no", "bf16", 'precision fp32 (--precision; accelerate\'s "bf16" does not change it)'),
        ("no", "no", "precision fp32 (--precision)"),
        ("fp16", "no", "precision fp16 (--precision)"),
        ("fp16", None, "precision fp16 (--precision)"),
    ],
)
def test_the_first_line_says_value_and_origin(gpu, wanted, told, line):
    environment = {} if told is None else {"ACCELERATE_MIXED_PRECISION": told}
    assert str(choose_precision(wanted, GPU, environment)) == line
