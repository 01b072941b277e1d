"""Promises about devices. torch.cuda is patched: this machine need not have a GPU."""

import warnings

import pytest
import torch
from torch import nn

from pix2pix.errors import UserError
from pix2pix.run import devices
from tests.ranks import run_ranks

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

    def wrap(module, device_ids):
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
