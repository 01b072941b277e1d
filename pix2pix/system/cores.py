"""The cores of this process: its affinity, and the quota of its cgroups.

A container is often granted less than the host has, by a quota that no count of cores shows: a
worker and a thread for each core of the host would then fight for it.
"""

import math
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

PROCESS = Path("/proc/self")
CGROUPS = Path("/sys/fs/cgroup")


class Cores(NamedTuple):
    """What one process may use.

    machine: its host name. cores: which, by affinity. group: its cgroup. quota: of that group, in
    cores; None: no limit.
    """

    machine: str
    cores: frozenset[int]
    group: str
    quota: float | None


def cores_of_process() -> Cores:
    """Return what the system grants to this process."""
    group, quota = cpu_quota()
    return Cores(socket.gethostname(), affinity(), group, quota)


def share_of_cores(mine: Cores, everybody: Collection[Cores]) -> int:
    """Return the cores of one process where all of `everybody`, itself included, work at once.

    A core that three of them may use counts a third: ranks that are bound to cores of their own
    keep all of them, and ranks that see the whole machine share it. A quota is shared by those in
    the same cgroup, and rounded up. At least 1.
    """
    near = [other for other in everybody if other.machine == mine.machine] or [mine]
    share = sum(1 / max(1, sum(core in other.cores for other in near)) for core in mine.cores)
    if mine.quota is not None:
        sharers = sum(other.group == mine.group for other in near)
        share = min(share, math.ceil(mine.quota / max(1, sharers)))
    return max(1, int(share + 1e-6))  # thirds that add up to a whole


def cpu_quota(process: Path = PROCESS, cgroups: Path = CGROUPS) -> tuple[str, float | None]:
    """Return this process's cgroup, and its limit in cores (None: there is none); cgroup v1 and v2.

    The least limit of the group and those around it. In a container the group's path may be that
    of the host, of which nothing is seen: then what is mounted is the container's own.
    """
    name, quotas = "", []
    for controllers, path in _groups(process):
        if controllers == "":
            root, read = cgroups, _quota_v2
        elif "cpu" in controllers.split(","):
            mounts = (cgroups / controllers, cgroups / "cpu", cgroups / "cpu,cpuacct")
            root, read = next((m for m in mounts if m.is_dir()), mounts[1]), _quota_v1
        else:
            continue
        name = name or path
        folder = root / path.lstrip("/")
        for place in [folder, *folder.parents]:
            if place == root or root in place.parents:
                quotas.append(read(place))
    return name, min((quota for quota in quotas if quota is not None), default=None)


def _groups(process: Path) -> Iterator[tuple[str, str]]:
    """Return (controllers, path) of each hierarchy; v2 names no controllers."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        yield controllers, path


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def affinity() -> frozenset[int]:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))  # macOS has none
