"""Checks that need torch: its CUDA against the driver, each GPU, a training step."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import torch

from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch
from pix2pix.doctor.findings import Finding, Patient, fails, note, ok
from pix2pix.errors import UserError
from pix2pix.run.devices import check_gpus
from pix2pix.run.state import build_state
from pix2pix.training.precision import default_precision
from pix2pix.training.step import AdversarialStep

STEPS = 3


def check_torch(patient: Patient) -> list[Finding]:
    """Return rows on torch, its CUDA and the driver, and each GPU."""
    rows = [ok("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}")]
    driver = _driver()
    if torch.cuda.is_available():
        return [*rows, *(_gpu_row(index) for index in range(torch.cuda.device_count()))]
    try:
        check_gpus()
    except UserError as error:
        return [*rows, fails("GPU", str(error), "or ask for no GPUs")]
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return [*rows, note("GPU", "CUDA_VISIBLE_DEVICES is empty: no GPU for this process")]
    if driver is not None:
        cure = (
            "install a newer driver, or the torch whose CUDA it knows: see the selector on "
            "pytorch.org"
        )
        text = f"torch sees none, and the driver {driver} is there; torch has CUDA "
        return [*rows, fails("GPU", f"{text}{torch.version.cuda or 'none'}", cure)]
    return [*rows, note("GPU", "none here: training runs on the processor")]


def check_step(patient: Patient) -> list[Finding]:
    """Return rows on a real training step of both networks, in each precision that is native."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    size, width, batch = (256, 64, 16) if cuda else (64, 16, 4)
    rows = []
    native = {"no", default_precision(device)} | ({"fp16"} if cuda else set())
    for precision in ("no", "bf16", "fp16"):
        if precision not in native:
            if precision == "bf16":
                text = "emulated here, several times slower than 32 bits; not tried"
                rows.append(note("step in bf16", text))
            continue
        rows.append(_step_row(device, size, width, batch, precision, patient.compile))
    return rows


def _gpu_row(index: int) -> Finding:
    properties = torch.cuda.get_device_properties(index)
    with torch.cuda.device(index):
        free, total = torch.cuda.mem_get_info()
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    text = (
        f"{properties.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, "
        f"{'native bf16' if native else 'no native bf16: fp16'}"
    )
    if free < 0.5 * total:
        return note(f"GPU {index}", text, "another program holds its memory: see nvidia-smi")
    return ok(f"GPU {index}", text)


def _step_row(
    device: torch.device, size: int, width: int, batch: int, precision: str, compiled: bool
) -> Finding:
    what = f"step in {'fp32' if precision == 'no' else precision}"
    config = TrainConfig(
        shards=("shards",),
        run_dir=Path("run"),
        image_size=size,
        global_batch=batch,
        generator_width=width,
        discriminator_width=width,
        total_steps=1000,
    )
    try:
        state = build_state(config, device, fp16=precision == "fp16")
        if compiled:
            state.generator.compile()
            state.discriminator.compile()
        step = AdversarialStep(config, state, state.generator, state.discriminator, precision)
        photographs = Batch.blank(batch, size).to(device)
        for _ in range(STEPS):  # the first ones allocate, tune and compile
            metrics = step([photographs])
        began = time.perf_counter()
        metrics = step([photographs])
        loss = metrics.generator_l1.item()
        seconds = time.perf_counter() - began
    except (RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return fails(what, reason, "see the versions of torch and driver above")
    if loss != loss:
        return fails(what, "the loss is not a number", "try --precision no; report this device")
    kind = "compiled, " if compiled else ""
    text = f"{kind}{size} px, width {width}: {batch / seconds:,.1f} photographs/s"
    return ok(what, text)


def _driver() -> str | None:
    """Return the version of the NVIDIA driver, or None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        ended = subprocess.run(query, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "that does not answer"
    return ended.stdout.split()[0] if ended.returncode == 0 and ended.stdout.split() else None
