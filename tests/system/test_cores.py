"""Promises about cores: affinity and quota are respected, and shared by those who share them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pix2pix.system.cores import Cores, cpu_quota, share_of_cores
from pix2pix.system.machine import num_cores

V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup")


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/pod/app\n", {"pod/app/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/pod/app\n", {"pod/app/cpu.max": "max 100000\n"}, None),
        # The group around it has less.
        ("0::/pod/app\n", {"pod/app/cpu.max": "max 1", "pod/cpu.max": "150000 100000\n"}, 1.5),
        # A container sees its own group as the root, under the name that the host has for it.
        ("0::/host/docker/1234\n", {"cpu.max": "50000 100000\n"}, 0.5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/job\n0::/\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            "1:cpu:/\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("", {}, None),
    ],
)
def test_the_quota_is_read_of_both_versions_of_cgroups(tmp_path, groups, files, quota):
    """A tree of files stands for the kernel's, which one machine has of one version only."""
    tree(tmp_path, {"proc/cgroup": groups})
    tree(tmp_path / "cgroup", files)
    assert cpu_quota(tmp_path / "proc", tmp_path / "cgroup")[1] == quota


def test_no_proc_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path / "proc", tmp_path)[1] is None


def rank(cores, machine="m1", group="/", quota=None):
    return Cores(machine, frozenset(cores), group, quota)


@pytest.mark.parametrize(
    ("mine", "others", "share"),
    [
        (rank(range(8)), [], 8),
        (rank(range(96)), [rank(range(96))] * 7, 12),
        (rank(range(12)), [rank(range(12 * i, 12 * i + 12)) for i in range(1, 8)], 12),
        (rank(range(96)), [rank(range(96), machine="m2")] * 7, 96),  # on nodes of their own
        (rank(range(96), quota=2.5), [], 3),  # rounded up
        (rank(range(96), quota=8.0), [rank(range(96), quota=8.0)], 4),
        (rank(range(96), group="/a", quota=8.0), [rank(range(96), group="/b", quota=8.0)], 8),
        (rank(range(2)), [rank(range(2))] * 7, 1),
    ],
)
def test_a_rank_has_the_cores_that_it_need_not_share(mine, others, share):
    assert share_of_cores(mine, [mine, *others]) == share


def test_a_process_counts_the_cores_that_it_is_bound_to():
    first = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{first}}});"
        "from pix2pix.system.machine import num_cores; print(num_cores())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


@pytest.mark.skipif(
    not (V1 / "cgroup.procs").exists() or not os.access(V1, os.W_OK),
    reason="a real cgroup can be made by root where cgroup v1 is mounted; trees of files stand for "
    "it above",
)
def test_a_real_cgroup_is_respected():
    group = V1 / f"pix2pix_test_{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"this machine lets nobody make a cgroup: {error}")
    try:
        (group / "cpu.cfs_quota_us").write_text("120000")
        code = (
            f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()));"
            "from pix2pix.system.machine import num_cores; print(num_cores())"
        )
        printed = subprocess.check_output([sys.executable, "-c", code], text=True)
        assert int(printed) == min(2, num_cores())
        (group / "cpu.cfs_quota_us").write_text("50000")
        assert int(subprocess.check_output([sys.executable, "-c", code], text=True)) == 1
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
