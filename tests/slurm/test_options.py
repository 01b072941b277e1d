"""What sbatch and srun are told for each flag, and which flags contradict each other."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from pix2pix.errors import UserError
from slurm.options import ClusterOptions, minutes_of
from tests.slurm.commands import sbatch_lines, script_of, submit, train
from tests.test_docs import PAGES, ROOT, sh_commands


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


def test_every_example_says_how_many_cores_a_rank_has():
    """SLURM gives one otherwise, and the loader of a GPU takes several."""
    presets = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```", PAGES["cluster.md"], re.M | re.S)[1])
    recipes = [path.read_text() for path in (ROOT / "recipes").glob("*.yaml")]
    commented = "".join(recipes).replace("\\\n#", " ").splitlines()
    commands = [line for line in commented if "slurm.submit" in line]
    commands += [line for page in PAGES.values() for line in sh_commands(page)]
    examples = [line for line in commands if "slurm.submit" in line]
    assert len(examples) >= 8
    for line in examples:
        preset = re.search(r"--preset (\w+)", line)
        of_preset = presets[preset[1]] if preset else {}
        assert "--cpus_per_task" in line or "cpus_per_task" in of_preset, line


def dry_run(capsys, shards: Path, run_dir: Path, flags: str) -> tuple[list[str], list[str]]:
    """(lines of sbatch, words of the srun command) that these flags make."""
    command = [*train(shards, run_dir, global_batch=8), *shlex.split(flags), "--dry_run"]
    status, shown, told = submit(capsys, *command)
    assert status == 0, told
    srun = next(line for line in shown.splitlines() if line.startswith("srun "))
    return sbatch_lines(script_of(shown)), shlex.split(srun)


def test_no_line_limits_charges_or_places_a_job_unasked(capsys, tiny_shards, run_dir):
    lines, _ = dry_run(capsys, tiny_shards, run_dir, "")
    assert {line.split("=")[0].lstrip("-") for line in lines} == {
        *("job-name", "nodes", "ntasks-per-node", "output", "open-mode", "signal", "requeue")
    }


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ("--gpus_per_node=4 --gpu_type=a100", ["--gpus-per-node=a100:4"]),
        ("--gres=gpu:4", ["--gres=gpu:4"]),
        ("--gres=gpu:a100:4,nvme:1", ["--gres=gpu:a100:4,nvme:1"]),
        ("--gres=gpu:4 --gpus_per_node=4", ["--gres=gpu:4"]),
        ("--sbatch gres=gpu:a100:4", ["--gres=gpu:a100:4"]),
    ],
)
def test_ranks_are_counted_from_whatever_asks_for_gpus(capsys, tiny_shards, run_dir, flags, lines):
    told, _ = dry_run(capsys, tiny_shards, run_dir, f"--nodes=2 {flags}")
    assert "--ntasks-per-node=4" in told
    assert [line for line in told if "gpu" in line] == lines


def test_lines_of_sbatch_keep_their_commas_and_no_requeue_is_honored(capsys, tiny_shards, run_dir):
    flags = "--sbatch mail-type=END,FAIL --sbatch exclusive --sbatch=no-requeue"
    lines, _ = dry_run(capsys, tiny_shards, run_dir, flags)
    assert {"--mail-type=END,FAIL", "--exclusive", "--no-requeue"} <= set(lines)
    assert "--requeue" not in lines


def test_flags_of_srun_and_the_python_of_a_container(capsys, tiny_shards, run_dir):
    _, plain = dry_run(capsys, tiny_shards, run_dir, "--srun=label")
    assert "--label" in plain
    assert plain[plain.index("submitit.core._submit") - 3] == sys.executable
    flags = "--srun container-image=images/torch.sqsh --srun container-mounts=/a:/a,/b:/b"
    _, pyxis = dry_run(capsys, tiny_shards, run_dir, flags)
    assert "--container-image=images/torch.sqsh" in pyxis
    assert "--container-mounts=/a:/a,/b:/b" in pyxis
    assert pyxis[pyxis.index("-u") - 1] == "python"
    _, apptainer = dry_run(
        capsys, tiny_shards, run_dir, "--python 'apptainer exec --nv torch.sif python3'"
    )
    assert apptainer[apptainer.index("-u") - 5 : apptainer.index("-u")] == [
        *("apptainer", "exec", "--nv", "torch.sif", "python3")
    ]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("2:00:00", 120),
        ("1-12", 2160),
        ("1-0:30", 1470),
        ("1-12:00:01", 2161),
    ],
)
def test_times_are_read_as_sbatch_reads_them(text, minutes):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "-5", "1-", "1-1:2:3:4", "0", "1.5"])
def test_other_times_are_mistakes(text):
    with pytest.raises(UserError):
        minutes_of(text)


def test_one_rank_for_each_gpu():
    assert ClusterOptions(nodes=4, gpus_per_node=8).world_size == 32
    assert ClusterOptions(nodes=2, tasks_per_node=3).world_size == 6
    assert ClusterOptions().world_size == 1
