"""The SLURM that other tests run on is a real one."""

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_a_job_runs_on_two_nodes(cluster, tmp_path):
    cluster.run(
        "sbatch",
        "--wait",
        "--nodes=2",
        "--ntasks-per-node=2",
        f"--output={tmp_path}/out",
        "--wrap=srun bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES'",
    )
    assert sorted((tmp_path / "out").read_text().splitlines()) == ["n1 0", "n1 1", "n2 2", "n2 3"]
