"""Promises about devices. torch.cuda is patched: this machine need not have a GPU."""

import warnings

import pytest
import torch
from PIL import Image
from torch import nn

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.errors import UserError
from pix2pix.evaluation.evaluation import colorize_batch, evaluation_mode
from pix2pix.model.color import ColorSpace
from pix2pix.run import devices
from pix2pix.run.state import build_generator
from tests.ranks import run_ranks
from tests.small_training import tiny_config, trainer_of

ASKED = {"CUDA_VISIBLE_DEVICES": "0"}


@pytest.fixture
def no_gpu(monkeypatch):
    def is_available() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)


@pytest.mark.parametrize(
    ("cuda", "driver", "cure"),
    [
        ("13.0", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue", "a driver that"),
        ("13.0", None, "No NVIDIA driver is loaded here"),
        (None, None, "built without CUDA"),
    ],
)
def test_gpus_that_torch_does_not_see_are_an_error_with_what_to_install(
    monkeypatch, tmp_path, no_gpu, cuda, driver, cure
):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(devices, "DRIVER_FILE", tmp_path / "version")
    if driver:
        (tmp_path / "version").write_text(driver)
    with pytest.raises(UserError) as raised:
        devices.check_gpus(ASKED)
    message = str(raised.value)
    assert "(CUDA_VISIBLE_DEVICES=0)" in message
    assert f"torch {torch.__version__} sees none" in message
    assert f"NVIDIA driver {'470.57.02' if driver else 'none'}" in message
    assert f"CUDA {cuda or 'none'}" in message
    assert "The NVIDIA driver is too old" in message
    assert cure in message


def test_nobody_who_asked_for_no_gpu_is_told_of_them(no_gpu):
    devices.check_gpus({})
    devices.check_gpus(ASKED | {"ACCELERATE_USE_CPU": "true"})


def test_gpus_that_torch_sees_are_well(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices.check_gpus(ASKED)


def ids_of_the_second_rank():
    """What DDP is given by local rank 1 that sees one GPU, as under --gpus-per-task."""
    from pix2pix.run.distributed import Distributed

    me = Distributed(timeout_minutes=1, num_threads=1)
    given = {}

    def wrap(module, device_ids, **_):
        given["ids"] = device_ids
        return module

    nn.parallel.DistributedDataParallel = wrap  # this process has nothing else to do
    me.device = torch.device("cuda", me.rank % 1)  # as accelerate takes it: modulo visible GPUs
    layer = nn.Linear(1, 1)
    layer.to = lambda device: layer
    me.parallel(layer)
    return given["ids"]


def test_a_process_that_sees_one_gpu_wraps_for_that_one_whatever_its_local_rank():
    assert run_ranks(ids_of_the_second_rank, 2) == [[0], [0]]


@pytest.fixture
def cudnn(monkeypatch):
    """torch's flags of cuDNN as a process begins with them, and as they were in the end."""
    flags = torch.backends.cudnn
    before = flags.benchmark, flags.allow_tf32
    flags.benchmark, flags.allow_tf32 = False, True
    yield flags
    flags.benchmark, flags.allow_tf32 = before


def test_a_training_times_its_algorithms_and_has_no_tf32(cudnn):
    devices.set_training_flags()
    assert cudnn.benchmark
    assert not cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    torch.use_deterministic_algorithms(True)
    try:
        devices.set_training_flags()
    finally:
        torch.use_deterministic_algorithms(False)
    assert not cudnn.benchmark


@pytest.mark.parametrize("trains", [False, True])
def test_fp32_is_exact_inside_and_the_flags_are_the_same_outside(cudnn, trains):
    if trains:
        devices.set_training_flags()
    before = cudnn.benchmark, cudnn.allow_tf32
    with devices.exact_fp32():
        assert (cudnn.benchmark, cudnn.allow_tf32) == (False, False)
    assert (cudnn.benchmark, cudnn.allow_tf32) == before


def flags_of(network: nn.Module) -> list[tuple[bool, bool]]:
    """What is set while `network` is called; filled by its calls."""
    seen: list[tuple[bool, bool]] = []
    flags = torch.backends.cudnn
    network.register_forward_pre_hook(lambda *_: seen.append((flags.benchmark, flags.allow_tf32)))
    return seen


def test_evaluations_and_colorings_have_exact_fp32(cudnn):
    space = ColorSpace("lab")
    network = build_generator(tiny_config("shards", "run"))
    seen = flags_of(network)
    with evaluation_mode(network) as generator:
        colorize_batch(generator, space, torch.zeros(1, 1, 64, 64, dtype=torch.uint8))
    Colorizer(network, space, 64, torch.device("cpu")).colorize(Image.new("L", (70, 70)))
    assert seen == [(False, False)] * 2


def training_flags(config):
    """The flags during the steps of a training that evaluates, too."""
    trainer = trainer_of(config)
    discriminator = flags_of(trainer.state.discriminator)
    average = flags_of(trainer.state.eval_generator)
    trainer.fit()
    trainer.distributed.shutdown()
    return set(discriminator), set(average)


def test_a_training_sets_its_flags_and_evaluates_with_exact_fp32(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, tmp_path / "run", total_steps=1)
    assert run_ranks(training_flags, 1, config) == [({(True, False)}, {(False, False)})]
