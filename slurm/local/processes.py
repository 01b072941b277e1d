"""The programs of a cluster on one machine (`local_cluster.py`), and its processes, found by what
they carry. A file with process ids would survive a kill or a restart of the machine, and be wrong.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pix2pix.errors import UserError

DAEMONS = ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")  # in the order of their end

PROGRAMS = (*DAEMONS, "mysql_install_db", "mariadb-admin", "sbatch", "srun", "sacct", "scontrol")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def require_programs() -> None:
    """Raises UserError if programs are missing, with the packages that bring them."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    if missing:
        raise UserError(
            f"this machine has no {', '.join(missing)}. On Debian and Ubuntu:"
            " apt-get install slurm-wlm slurmdbd mariadb-server"
        )


def path_of(program: str) -> str:
    """Where it is: daemons are in folders that a user's own PATH may lack."""
    path = shutil.which(program, path=SEARCH_PATH)
    assert path is not None, program  # require_programs has looked
    return path


class Process(NamedTuple):
    """A process of a cluster; `node` is empty for a daemon that is of no node."""

    pid: int
    program: str
    node: str


def processes_of(configuration: Path) -> list[Process]:
    """Daemons, job steps and what jobs started, of the cluster with this slurm.conf.

    A daemon and a job's process are known by their environment, a slurmstepd, which blanks its own,
    by its children. The daemons of nodes come first, then steps, then what steps started: killed in
    this order, none can report the death of another.
    """
    found: set[Process] = set()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            found.update(_recognize(pid, os.fsencode(configuration)))
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
        wait_until(lambda: not any(map(_is_alive, processes)), seconds)
    except TimeoutError:
        kill(processes)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when the condition holds. Raises TimeoutError if it does not in `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def _recognize(pid: int, configuration: bytes) -> Iterator[Process]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    variables = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
    if variables.get(b"SLURM_CONF") != configuration:
        return
    node = os.fsdecode(variables.get(b"SLURMD_NODENAME", b""))  # set in every job, and by us
    program = _program_of(pid)
    if not node and program not in DAEMONS:
        return  # a shell or a program of the user's that talks to this cluster
    yield Process(pid, program, node)
    parent = int(_stat(pid)[1])
    if _program_of(parent) == "slurmstepd":
        yield Process(parent, "slurmstepd", node)


def _program_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _stat(pid: int) -> list[str]:
    """State, parent and what follows them in proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def _is_alive(process: Process) -> bool:
    try:
        return _stat(process.pid)[0] not in "ZX"  # a zombie waits for its parent to look
    except OSError:
        return False


def _send(number: signal.Signals, processes: Iterable[Process]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
