"""What a real SLURM is told of a job: what was asked for, and no more; in a container, too."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slurm.scheduler import job_fields
from tests.slurm.jobs import (
    LONG,
    SECONDS,
    flags_of,
    records_of,
    submit,
    told_at_submission,
    wait_for_state,
    wait_for_steps,
)
from tests.small_training import tiny_config
from tests.training.test_launcher import ENVIRONMENT, ROOT, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


@pytest.mark.parametrize(
    ("flags", "fields", "told"),
    [
        (
            ["--nodes=2"],
            {"TimeLimit": "UNLIMITED", "NumTasks": "2", "Partition": "main"},
            "each start may run without a limit",
        ),
        (["--partition=urgent"], {}, "each start may run 30:00, what partition urgent gives"),
        (["--time=2:00:00"], {"TimeLimit": "02:00:00"}, "each start may run 2:00:00"),
        (["--nodes=2", "--gres=gpu:a100:2"], {"TresPerNode": "gres:gpu:a100:2"}, "may run"),
        (["--gpus_per_node=2", "--gpu_type=a100"], {"TresPerNode": "gres:gpu:a100:2"}, "may run"),
        (["--sbatch=gres=gpu:2", "--sbatch=nice=5"], {"TresPerNode": "gres:gpu:2"}, "may run"),
    ],
)
def test_slurm_takes_what_was_asked_for_and_no_more(
    cluster, tiny_shards, run_dir, flags, fields, told
):
    config = tiny_config(tiny_shards, run_dir, global_batch=8)
    said = told_at_submission(config, "--sbatch=hold", *flags)
    job = re.search(r"job (\d+) is queued", said)[1]
    assert told in said
    known = job_fields(job)
    assert {name: known.get(name) for name in fields} == fields
    asks_for_gpus = "TresPerNode" in fields
    assert ("no GPU is asked for" in said) is not asks_for_gpus
    nodes = 2 if "--nodes=2" in flags else 1
    assert known["NumTasks"] == str(2 * nodes if asks_for_gpus else nodes)


def test_a_type_of_gpu_that_is_not_there_is_refused_before_it_is_queued(
    cluster, tiny_shards, run_dir
):
    with pytest.raises(AssertionError, match="SLURM would not take this job"):
        submit(tiny_config(tiny_shards, run_dir, global_batch=8), "--gres=gpu:h100:2")
    with pytest.raises(AssertionError, match=r"is over when it is\s+time to save"):
        submit(tiny_config(tiny_shards, run_dir), "--partition=urgent", "--save_seconds=1800")


WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@WITHOUT_GPU
def test_gpus_that_torch_does_not_see_end_a_job_for_good(cluster, tiny_shards, run_dir):
    """The GPUs of the cluster are pretended."""
    config = tiny_config(tiny_shards, run_dir, global_batch=8)
    job = submit(config, "--gres=gpu:a100:2")
    wait_for_state(job, "FAILED")
    log = (run_dir / "slurm" / f"{job}_0_log.out").read_text()
    assert re.search(rf"the first error of job {job}: rank \d of 2 .*GPUs were asked for", log)
    assert "requeueing" not in log


@WITHOUT_GPU
def test_gpus_that_torch_does_not_see_are_one_error_here(tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir)
    command = ["slurm.submit", "train", "--cluster=local", "--gpus_per_node=1", *flags_of(config)]
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "is done" not in ended.stdout
    assert len(re.findall("^error: ", ended.stderr, re.MULTILINE)) == 1
    assert "GPUs were asked for" in " ".join(ended.stderr.split())


# In place of Pyxis: takes its flag away, and gives the ranks a PATH of their own.
SRUN = """\
#!/bin/bash
arguments=()
for argument; do
  case $argument in
    --container-image=torch.sqsh) in_container=1 ;;
    *) arguments+=("$argument") ;;
  esac
done
[ "$in_container" ] && export PATH={container}
exec {srun} "${{arguments[@]}}"
"""
# In place of Apptainer.
APPTAINER = """\
#!/bin/bash
[ "$1 $2" = "exec torch.sif" ] || exit 1
export PATH={container}
exec "${{@:3}}"
"""
PYTHON = """\
#!/bin/bash
export IN_CONTAINER=1
exec {python} "$@"
"""


@pytest.mark.parametrize(
    "flag", ["--srun=container-image=torch.sqsh", "--python=apptainer exec torch.sif python"]
)
def test_a_job_in_a_container_runs_its_python_and_is_requeued_from_outside(
    cluster, tiny_shards, run_dir, tmp_path, flag
):
    """The container has a Python, and no program of SLURM."""
    paths = {"container": tmp_path / "container", "srun": shutil.which("srun")}
    programs = {"outside/srun": SRUN, "outside/apptainer": APPTAINER, "container/python": PYTHON}
    for name, script in programs.items():
        program = tmp_path / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(script.format(**paths, python=sys.executable))
        program.chmod(0o755)
    config = tiny_config(tiny_shards, run_dir, total_steps=LONG)
    job = submit(config, flag, f"--setup=export PATH={tmp_path}/outside:$PATH")
    wait_for_steps(run_dir, 3)
    (rank,) = [p for p in Path("/proc").glob("[0-9]*") if is_rank_of(p, run_dir)]
    environment = (rank / "environ").read_text().split("\0")
    assert "IN_CONTAINER=1" in environment
    assert f"PATH={tmp_path / 'container'}" in environment
    cluster.run("scancel", "--signal=USR2", job)
    wait_for_state(job, "PENDING")
    (requeued,) = records_of(run_dir).read("requeued")
    assert requeued["step"] >= 3


def is_rank_of(process: Path, run_dir: Path) -> bool:
    try:
        words = (process / "cmdline").read_text().split("\0")
    except OSError:
        return False
    return words[0] == sys.executable and f"{run_dir}/slurm" in words


def test_a_submission_from_inside_a_job_knows_nothing_of_it(cluster, tiny_shards, run_dir):
    config = tiny_config(tiny_shards, run_dir)
    command = [sys.executable, "-m", "slurm.submit", "train", "--nodes=2", *flags_of(config)]
    script = run_dir.parent / "outer.sh"
    quoted = " ".join(f"'{word}'" for word in command)
    log = run_dir.parent / "outer.log"
    script.write_text(f"#!/bin/bash\ncd {ROOT}\nexport PYTHONPATH=.\nsrun -n1 {quoted}\n")
    outer = ["--nodes=1", "--ntasks=3", "--mem=100", f"--output={log}"]
    cluster.run("sbatch", *outer, str(script))
    wait_for(lambda: "is queued" in (log.read_text() if log.exists() else ""), SECONDS)
    inner = re.search(r"job (\d+) is queued", log.read_text())[1]
    wait_for_state(inner, "COMPLETED")
    (started,) = records_of(run_dir).read("started")
    assert (started["nodes"], started["ranks"], started["restarts"]) == (2, 2, 0)
