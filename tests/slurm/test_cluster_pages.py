"""Every command for a cluster that README and docs name works, in small, on a real SLURM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.photographs import write_folder
from tests.test_docs import ON_A_CLUSTER, PAGES, sh_commands, with_flags
from tests.training.test_launcher import ENVIRONMENT, ROOT, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SECONDS = 120

# Two nodes with two ranks each, without the GPUs, and networks that learn nothing in little time.
RANKS = {"gpus_per_node": 0, "tasks_per_node": 2, "cpus_per_task": 1}
TRAIN = {
    "nodes": 2,
    **RANKS,
    "image_size": 64,
    "generator_width": 4,
    "discriminator_width": 4,
    "global_batch": 4,
    "epochs": 1,
    "warmup_steps": 1,
    "num_workers": 0,
}
SMALLER = {
    "submit shards": {"parts": 2, "cpus_per_task": 1, "short_side": 72, "min_short_side": 72},
    "submit train": TRAIN,
    "submit sweep": TRAIN | {"grid": "l1_weight=50", "nodes": 1},
    "submit evaluate": RANKS,
    "submit doctor": {"nodes": 2, **RANKS},
}
PRESETS = "\n".join(f"{name}:\n  partition: main\n  cpus_per_task: 1" for name in ("cpu", "h100"))


def smaller(command: str) -> str:
    for part, flags in SMALLER.items():
        if part in command:
            command = with_flags(command, flags)
    return command


def is_idle(cluster) -> bool:
    return not cluster.run("squeue", "--noheader").strip()


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("README.md", ["shards/manifest.json", "runs/large/checkpoints"]),
        (
            "cluster.md",
            ["shards/manifest.json", "report.json", "runs/sweep/sweep.png", "out/doctor"]
            + [f"runs/sweep/l1_weight=50,seed={seed}/checkpoints" for seed in (0, 1)]
            + [f"runs/coco-{gpus}/checkpoints" for gpus in (8, 32, 256)],
        ),
    ],
)
def test_every_command_for_a_cluster_works(cluster, tmp_path: Path, page, made):
    for folder, count in (("photos", 16), ("coco/train2017", 16), ("coco/val2017", 5)):
        write_folder(tmp_path / folder, count, width=90, height=72)
    (tmp_path / "pix2pix").mkdir()
    (tmp_path / "pix2pix" / "clusters.yaml").write_text(PRESETS)
    variables = {
        "SLURM_CONF": os.environ["SLURM_CONF"],
        "XDG_CONFIG_HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # `python` is this one
        "PYTHONPATH": str(ROOT),
    }
    commands = [command for command in sh_commands(PAGES[page]) if ON_A_CLUSTER in command]
    assert len(commands) >= 3
    for command in commands:
        ended = subprocess.run(
            ["bash", "-c", smaller(command)],
            cwd=tmp_path,
            env=ENVIRONMENT | variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        wait_for(lambda: is_idle(cluster), SECONDS)
    assert [name for name in made if not (tmp_path / name).exists()] == []
    for config in tmp_path.glob("runs/*/config.json"):
        steps = json.loads(config.read_text())["config"]["total_steps"]
        assert (config.parent / "checkpoints" / f"step_{steps:09d}").is_dir()
