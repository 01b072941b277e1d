"""A real SLURM on this machine, to try things and for the tests: make cluster, make cluster-stop.

A controller, accounting in a database, and two or more nodes, with ports and a folder of their own.
Linux only, as SLURM is. As root or not: a cluster runs the jobs of the user who started it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from pix2pix.cli import main, option
from pix2pix.errors import UserError
from slurm.local_config import write_configuration

DEFAULT_FOLDER = Path("out/cluster")
DAEMONS = ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")  # in the order of their end
PROGRAMS = (*DAEMONS, "mysql_install_db", "mariadb-admin", "sbatch", "srun", "sacct", "scontrol")
SYSTEM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
START_SECONDS = 60  # seen: 6 on one core
STOP_SECONDS = 30
# A smaller database: 90 MB of memory, 30 MB of disk. Native asynchronous I/O is refused in many
# containers.
_DATABASE_FLAGS = (
    "--innodb-buffer-pool-size=8M",
    "--innodb-log-file-size=4M",
    "--innodb-use-native-aio=0",
)


class _Process(NamedTuple):
    """A process of a cluster."""

    pid: int
    program: str
    node: str  # empty for a daemon that is of no node


class LocalCluster:
    """A SLURM in the folder `root`, which `start` makes and fills.

    `with LocalCluster(root) as cluster:` starts it, stops it, and also stops it when this process
    is killed. The system's own `sbatch`, `squeue` and so on talk to it in `cluster.environment`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._configuration = self.root / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's programs need to know to find this cluster."""
        return {"SLURM_CONF": str(self._configuration)}

    def start(self, num_nodes: int = 2, cpus_per_node: int = 4, gpus_per_node: int = 2) -> None:
        """Start nodes n1, n2, … and wait until they are idle; what an earlier start left is lost.

        Raises:
            UserError: programs are missing, the folder holds something else, it runs already, or a
                daemon does not come up.
        """
        _require_programs()
        if self.is_running():
            raise UserError(f"the cluster in {self.root} runs already; stop it first")
        self._empty_folder()
        nodes = [f"n{number}" for number in range(1, num_nodes + 1)]
        write_configuration(self.root, nodes, cpus_per_node, gpus_per_node)
        try:
            self._start_authentication()
            self._start_database()
            controller = self._start_daemon("slurmctld", "-D")
            for node in nodes:
                self._start_node(node)
            self._wait_for_nodes(nodes, controller)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End jobs and daemons, the database after those that write to it. Nothing if none runs."""
        with contextlib.suppress(subprocess.SubprocessError):
            if any(process.program == "slurmctld" for process in self._processes()):
                self.cancel_jobs()
        for daemon in DAEMONS:
            _end([p for p in self._processes() if p.program == daemon], STOP_SECONDS)
        _kill(self._processes())

    def is_running(self) -> bool:
        """True if any process of it is alive: after a restart of the machine there is none."""
        return bool(self._processes())

    def run(self, *command: str, seconds: float = 30) -> str:
        """What a program of SLURM prints, asked on this cluster.

        Raises:
            subprocess.SubprocessError: it failed, or did not answer in time.
        """
        return subprocess.run(
            command,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=seconds,
        ).stdout

    def cancel_jobs(self, seconds: float = 20) -> None:
        """Cancel every job and wait until none is left."""
        self.run("scancel", "--user", str(os.getuid()))
        _wait(lambda: not self.run("squeue", "--noheader"), "jobs do not end", seconds)

    def kill_node(self, name: str) -> None:
        """The node's daemon and all its job steps die at once, as with a loss of power."""
        _kill(process for process in self._processes() if process.node == name)

    def restart_node(self, name: str) -> None:
        """Start the daemon of a killed node and wait until the node takes jobs."""
        self._wait_for_nodes([name], self._start_node(name))

    def restart_controller(self) -> None:
        """Stop the controller and start it again with its saved state; jobs run on meanwhile."""
        _end([p for p in self._processes() if p.program == "slurmctld"], STOP_SECONDS)
        controller = self._start_daemon("slurmctld", "-D")
        self._wait_for(lambda: "UP" in self._told("scontrol", "ping"), controller)

    def clear(self) -> None:
        """Cancel every job and start the nodes that are down."""
        self.cancel_jobs()
        for line in self.run("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines():
            name, state = line.split()
            if state.startswith("down"):
                self.restart_node(name)

    def skip_requeue_wait(self, job_id: int | str) -> None:
        """Start a requeued job now: SLURM lets it wait for two minutes."""
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def __enter__(self) -> Self:
        self.start()
        # It reads until the pipe closes: at the end of this process, whatever ends it.
        script = 'read _; exec "$0" -m slurm.local_cluster stop --dir "$1"'
        self._guard = subprocess.Popen(
            ["sh", "-c", script, sys.executable, self.root],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._guard.kill()
        self._guard.communicate()
        self.stop()

    def _empty_folder(self) -> None:
        if self.root.exists() and any(self.root.iterdir()):
            if not self._configuration.exists():
                raise UserError(f"{self.root} holds something else than a cluster; name another")
            shutil.rmtree(self.root)
        if len(str(self.root)) > 70:  # a socket's path may have 108 bytes
            raise UserError(f"{self.root} is too long a path for sockets; name a shorter one")
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)  # the database asks for no password
        (self.root / "state").mkdir()

    def _start_authentication(self) -> None:
        """Munge signs what daemons and programs say to each other."""
        paths = {"key-file": "munge.key", "socket": "munge.socket", "seed-file": "munge.seed"}
        paths |= {"pid-file": "munge.pid", "log-file": "munge.log"}
        flags = [f"--{name}={self.root / path}" for name, path in paths.items()]
        # force: no complaint about folders that root's rules do not know
        munged = self._start_daemon("munged", "--foreground", "--force", *flags)
        self._wait_for((self.root / "munge.socket").exists, munged)

    def _start_database(self) -> None:
        data = f"--datadir={self.root / 'database'}"
        flags = [data, *_DATABASE_FLAGS, *(["--user=root"] if os.getuid() == 0 else [])]
        installed = subprocess.run(
            [
                _program("mysql_install_db"),
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *flags,
            ],
            capture_output=True,
            text=True,
        )
        if installed.returncode:
            raise UserError(f"mysql_install_db failed: {installed.stderr or installed.stdout}")
        listening = [f"--socket={self._database_socket}", "--skip-networking"]
        pid = f"--pid-file={self.root / 'mariadbd.pid'}"
        mariadbd = self._start_daemon("mariadbd", "--no-defaults", *flags, *listening, pid)
        ping = ["mariadb-admin", "--no-defaults", f"--socket={self._database_socket}", "ping"]
        self._wait_for(lambda: _answers(ping, {}), mariadbd)
        slurmdbd = self._start_daemon("slurmdbd", "-D")
        ping = ["sacctmgr", "--noheader", "list", "cluster"]
        self._wait_for(lambda: _answers(ping, self.environment), slurmdbd)

    @property
    def _database_socket(self) -> Path:
        return self.root / "database.socket"

    def _start_node(self, name: str) -> subprocess.Popen[bytes]:
        return self._start_daemon("slurmd", "-D", "-N", name, node=name)

    def _start_daemon(self, program: str, *flags: str, node: str = "") -> subprocess.Popen[bytes]:
        """Start it in the foreground of a session of its own, marked by its environment."""
        marks = self.environment | {"MYSQL_UNIX_PORT": str(self._database_socket)}
        marks |= {"SLURMD_NODENAME": node} if node else {}
        with (self.root / f"{node or program}.out").open("w") as output:
            return subprocess.Popen(
                [_program(program), *flags],
                env=_outside_of_slurm() | marks,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _wait_for_nodes(self, names: Iterable[str], daemon: subprocess.Popen[bytes]) -> None:
        def take_jobs() -> bool:
            told = self._told("sinfo", "--noheader", "--Node", "--format=%N %T")
            states = dict(line.split() for line in told.splitlines())
            return all(states.get(name) in ("idle", "mixed", "allocated") for name in names)

        self._wait_for(take_jobs, daemon)

    def _told(self, *command: str) -> str:
        """As `run`, but nothing if the controller does not answer (yet)."""
        ended = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=30
        )
        return ended.stdout

    def _wait_for(self, is_up: Callable[[], bool], daemon: subprocess.Popen[bytes]) -> None:
        name = Path(str(daemon.args[0])).name  # type: ignore[index]

        def is_up_or_has_ended() -> bool:
            if daemon.poll() is not None:
                raise UserError(f"{name} has ended, see {self.root}")
            return is_up()

        _wait(is_up_or_has_ended, f"{name} does not come up, see {self.root}", START_SECONDS)

    def _processes(self) -> list[_Process]:
        """Daemons, job steps and what jobs started.

        A daemon or a job's process is known by its environment; slurmstepd, which blanks its own,
        by its children. Daemons of nodes come first, then steps, then what steps started: killed
        in this order, none tells of the other's end.
        """
        found: list[_Process] = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):
                found += self._recognise(pid)
        first = {"slurmd": 0, "slurmstepd": 1}
        return sorted(set(found), key=lambda process: (first.get(process.program, 2), process.pid))

    def _recognise(self, pid: int) -> Iterator[_Process]:
        folder = Path(f"/proc/{pid}")
        pairs = folder.joinpath("environ").read_bytes().split(b"\0")
        variables = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
        if variables.get(b"SLURM_CONF") != os.fsencode(self._configuration):
            return
        program = _name_of(pid)
        node = variables.get(b"SLURMD_NODENAME", b"").decode()
        if not node and program not in DAEMONS:
            return  # a program of the user's that talks to this cluster
        yield _Process(pid, program, node)
        parent = int(folder.joinpath("stat").read_text().rpartition(") ")[2].split()[1])
        if _name_of(parent) == "slurmstepd":
            yield _Process(parent, "slurmstepd", node)


def use_local_cluster(folder: Path = DEFAULT_FOLDER) -> None:
    """Let SLURM's programs talk to the cluster in `folder` if it runs, and this machine knows no
    other one: from its own configuration, or from SLURM_CONF.
    """
    if "SLURM_CONF" in os.environ or SYSTEM_CONFIGURATION.exists():
        return
    cluster = LocalCluster(folder)
    if cluster.is_running():
        os.environ.update(cluster.environment)


def _outside_of_slurm() -> dict[str, str]:
    """The environment without what a job around this process says of itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}


def _require_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    if missing:
        raise UserError(
            f"this machine has no {', '.join(missing)}; on Debian and Ubuntu:"
            " apt-get install slurm-wlm slurmdbd mariadb-server"
        )


def _program(name: str) -> str:
    path = shutil.which(name, path=SEARCH_PATH)
    assert path is not None, name  # _require_programs has looked
    return path


def _answers(command: list[str], environment: dict[str, str]) -> bool:
    try:
        ended = subprocess.run(
            command, env=os.environ | environment, capture_output=True, timeout=10
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _wait(condition: Callable[[], bool], problem: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise UserError(f"{problem} (waited {seconds:.0f} s)")
        time.sleep(0.1)


def _kill(processes: Iterable[_Process]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _end(processes: Iterable[_Process], seconds: float) -> None:
    """Ask processes to end and wait until they have; kill those that do not."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    try:
        _wait(lambda: not any(map(_is_alive, processes)), "", seconds)
    except UserError:
        _kill(processes)


def _is_alive(process: _Process) -> bool:
    try:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"  # a zombie waits for its parent to look


@dataclass(frozen=True)
class FolderOptions:
    """Which cluster."""

    dir: Path = option(DEFAULT_FOLDER, metavar="DIR", help="folder of the cluster")


@dataclass(frozen=True)
class StartOptions(FolderOptions):
    """Which cluster, and its size."""

    nodes: int = option(2, help="nodes n1, n2, ...")
    cpus_per_node: int = option(4, help="processor cores that a node claims to have")
    gpus_per_node: int = option(2, help="GPUs that a node claims to have")


def start(options: StartOptions) -> None:
    """Start a SLURM on this machine."""
    cluster = LocalCluster(options.dir)
    if cluster.is_running():
        print(f"the cluster in {options.dir} runs already")
    else:
        cluster.start(options.nodes, options.cpus_per_node, options.gpus_per_node)
    status(options)
    print(
        f"\nslurm.submit and slurm.status find it from here; sbatch, squeue and sinfo with\n"
        f"export SLURM_CONF={cluster.environment['SLURM_CONF']}"
    )


def stop(options: FolderOptions) -> None:
    """Stop it: jobs, nodes, controller, database."""
    cluster = LocalCluster(options.dir)
    told = "stopped" if cluster.is_running() else "there runs none in"
    cluster.stop()
    print(f"{told} {options.dir}")


def status(options: FolderOptions) -> int:
    """Show its nodes and jobs; status 1 if it does not run."""
    cluster = LocalCluster(options.dir)
    if not cluster.is_running():
        print(f"no cluster runs in {options.dir}")
        return 1
    print(cluster.run("sinfo"))
    print(cluster.run("squeue"), end="")
    return 0


if __name__ == "__main__":
    main(
        {
            "start": (start, StartOptions),
            "stop": (stop, FolderOptions),
            "status": (status, FolderOptions),
        }
    )
