"""Promises of trainings on each device: resume, and what is made of a run, in other processes."""

import gc
import json
import os
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.evaluation.report import EvaluateOptions, make_report
from pix2pix.export.export import export
from pix2pix.run.distributed import Distributed
from pix2pix.training.trainer import Trainer
from tests.devices import DEVICES, environment_of
from tests.ranks import free_port, run_ranks
from tests.small_training import fit, tiny_config
from tests.training.test_resume import branch_of, digests_of, records_of


def resumed(config, deterministic: bool) -> tuple[dict[str, str], dict[str, str], str]:
    """Digests of an uninterrupted run, and of one that went on from step 2; the device."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS asks for it to add in one order
    torch.use_deterministic_algorithms(deterministic)
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    whole = Trainer(config, distributed)
    whole.fit()
    branch = branch_of(config.run_dir, 2)
    rest = Trainer(replace(config, run_dir=branch, checkpoint_every=0), distributed)
    assert rest.state.step == 2
    rest.fit()
    return digests_of(whole), digests_of(rest), distributed.device.type


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_a_resumed_training_is_the_same_to_the_bit_where_kernels_are(
    tiny_shards, tmp_path, device, deterministic
):
    config = tiny_config(tiny_shards, tmp_path / "run", checkpoint_every=1, keep_checkpoints=4)
    environment = environment_of(device)
    ((whole, rest, where),) = run_ranks(resumed, 1, config, deterministic, environment=environment)
    assert where == device
    assert len(whole) > 100
    if deterministic or device == "cpu":
        assert rest == whole
    expected = records_of(config.run_dir)
    found = records_of(config.run_dir.with_name("run_killed_at_2"))
    for step in (3, 4):
        losses = {name: v for name, v in expected[step].items() if name.startswith("loss/")}
        assert len(losses) == 3
        for name, value in losses.items():
            assert found[step][name] == pytest.approx(value, rel=0.02), (step, name)


def used(config, folder: Path) -> tuple[object, ...]:
    """Train with pictures, evaluation and a profile; then evaluate, color and export the run."""
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    trainer = Trainer(config, distributed)
    trainer.fit()
    options = EvaluateOptions(
        run_dir=config.run_dir, shards=config.shards, split="val", out=folder / "report.json"
    )
    make_report(options, distributed)
    export(config.run_dir, folder / "model")
    chroma = {
        name: colored_by(Colorizer.from_path(source))
        for name, source in (("run", config.run_dir), ("model", folder / "model"))
    }
    colorizer = Colorizer.from_run(config.run_dir)
    where = colorizer.device.type, distributed.device.type
    on_cpu = Colorizer(colorizer.generator, colorizer.color_space, colorizer.image_size, "cpu")
    chroma["cpu"] = colored_by(on_cpu)
    networks = [weakref.ref(network) for network in trainer.state.networks().values()]
    del trainer
    gc.collect()
    return where, chroma, sum(reference() is not None for reference in networks)


def colored_by(colorizer: Colorizer) -> np.ndarray:
    gray = np.linspace(20, 230, 100 * 80).reshape(80, 100).astype(np.uint8)
    return colorizer.colorize_array(gray)


def report_of(config, folder: Path) -> None:
    options = EvaluateOptions(
        run_dir=config.run_dir, shards=config.shards, split="val", out=folder / "on_cpu.json"
    )
    make_report(options, Distributed(timeout_minutes=1, num_threads=1))


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_is_profiled_evaluated_colored_and_exported_as_on_a_cpu(
    tiny_shards, tmp_path, device
):
    config = tiny_config(
        tiny_shards, tmp_path / "run", total_steps=6, sample_every=3, evaluate_every=3, profile=2
    )
    ((where, colored, left),) = run_ranks(
        used, 1, config, tmp_path, environment=environment_of(device)
    )
    assert where == (device, device)
    assert left == 0  # networks of the training still in memory
    assert np.array_equal(colored["run"], colored["model"])
    difference = np.abs(colored["run"].astype(float) - colored["cpu"]).mean()
    assert difference < 1  # of 255
    (trace,) = (config.run_dir / "profile").glob("*.txt")
    assert ("Self CUDA" in trace.read_text()) is (device == "cuda")
    assert len(list((config.run_dir / "samples").iterdir())) == 2

    run_ranks(report_of, 1, config, tmp_path)
    mine, on_cpu = (
        json.loads((tmp_path / name).read_text()) for name in ("report.json", "on_cpu.json")
    )
    for figure in ("psnr", "ssim", "chroma_error", "colorfulness"):
        assert mine[figure] == pytest.approx(on_cpu[figure], rel=0.01), figure


@pytest.mark.parametrize("device", DEVICES)
def test_a_rank_that_sees_one_gpu_takes_it_whatever_its_local_rank(tiny_shards, tmp_path, device):
    """As under --gpus-per-task, where each process sees a GPU of its own, of index 0."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0"
    sees = {"CUDA_VISIBLE_DEVICES": visible.split(",")[0]} if device == "cuda" else {}
    environment = environment_of(device) | alone | place | sees
    (told,) = run_ranks(name_of_device, 1, environment=environment)
    assert told == f"{device}:0"
    config = tiny_config(tiny_shards, tmp_path / "run", global_batch=4)
    count = 2 if device == "cpu" else min(2, torch.cuda.device_count())
    ranks = run_ranks(fit_on_own_gpu, count, config, environment=environment_of(device))
    assert [rank["outcome"] for rank in ranks] == ["finished"] * count
    weights = [{k: v for k, v in rank["digests"].items() if k.endswith("weight")} for rank in ranks]
    assert len(weights[0]) > 20
    assert all(mine == weights[0] for mine in weights)


def name_of_device() -> str:
    distributed = Distributed(timeout_minutes=1, num_threads=1)
    name = str(distributed.device)
    distributed.shutdown()
    return name


def fit_on_own_gpu(config) -> dict:
    if os.environ["ACCELERATE_USE_CPU"] == "false":  # before CUDA looks, once
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0,1"
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(os.environ.get("RANK", "0"))]
    return fit(config)
