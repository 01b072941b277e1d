"""The programs of a cluster on one machine (cluster.py), and its processes.

They are found by what they carry. A file with process ids would survive a kill or a restart of the
machine, and be wrong.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from pix2pix.errors import UserError

DAEMONS = ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")  # in the order of their end

PROGRAMS = (*DAEMONS, "mysql_install_db", "mariadb-admin", "sbatch", "srun", "sacct", "scontrol")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def require_programs() -> None:
    """Raise UserError if programs are missing, with the packages that bring them."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    if missing:
        raise UserError(
            f"this machine has no {', '.join(missing)}. On Debian and Ubuntu:"
            " apt-get install slurm-wlm slurmdbd mariadb-server"
        )


def path_of(program: str) -> str:
    """Return where it is: daemons are in folders that a user's own PATH may lack."""
    path = shutil.which(program, path=SEARCH_PATH)
    assert path is not None, program  # require_programs has looked
    return path


class Process(NamedTuple):
    """A process of a cluster; `node` is empty for a daemon that is of no node."""

    pid: int
    program: str
    node: str


def processes_of(configuration: Path) -> list[Process]:
    """Find daemons, job steps and what jobs started, of the cluster with this slurm.conf.

    A daemon and a job's process are known by their environment, a slurmstepd, which blanks its own,
    by its children. The daemons of nodes come first, then steps, then what steps started: killed in
    this order, none can report the death of another.
    """
    found: set[Process] = set()
    for process in psutil.process_iter(["name", "environ"]):
        variables = process.info["environ"] or {}  # none of one that has ended, or is another's
        node = variables.get("SLURMD_NODENAME", "")  # set in every job, and by us
        program = process.info["name"]
        # Without a node, one that is no daemon is a user's that talks to this cluster.
        if variables.get("SLURM_CONF") == str(configuration) and (node or program in DAEMONS):
            found.add(Process(process.pid, program, node))
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if parent is not None and parent.name() == "slurmstepd":
                    found.add(Process(parent.pid, "slurmstepd", node))
    first = {"slurmd": 0, "slurmstepd": 1}
    return sorted(found, key=lambda process: (first.get(process.program, 2), process.pid))


def kill(processes: Iterable[Process]) -> None:
    """Kill processes at once, in their order."""
    _send(signal.SIGKILL, processes)


def end(processes: Iterable[Process], seconds: float) -> None:
    """Ask processes to end and wait until they have; kill those that do not."""
    processes = list(processes)
    _send(signal.SIGTERM, processes)
    try:
        wait_until(lambda: not any(is_alive(process.pid) for process in processes), seconds)
    except TimeoutError:
        kill(processes)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when the condition holds. Raises TimeoutError if it does not in `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    """Return True for a process that runs; a zombie has ended, and waits for its parent to look."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _send(number: signal.Signals, processes: Iterable[Process]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
