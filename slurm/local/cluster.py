"""A real SLURM on this machine, to try things and for the tests: make cluster, make cluster-stop.

Controller, accounting and nodes, on ports and in a folder of their own. Tried with SLURM 22.05.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pix2pix.cli.command_line import main
from pix2pix.cli.options import option
from pix2pix.errors import UserError
from slurm.local.config import database_flags, is_configuration, munged_flags, write_configuration
from slurm.local.processes import (
    DAEMONS,
    Process,
    end,
    kill,
    path_of,
    processes_of,
    require_programs,
    wait_until,
)

DEFAULT_FOLDER = Path("out/cluster")
SYSTEM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
STOP_SECONDS = 30
MAX_PATH_LENGTH = 75  # the path of a socket in it may have 107 characters

Daemon = subprocess.Popen[bytes]


class LocalCluster:
    """A SLURM in the folder `root`, which `start` makes and fills.

    `with LocalCluster(root) as cluster:` starts it and stops it, also when this process is killed.
    """

    def __init__(self, root: Path) -> None:
        """Name its folder; nothing is started yet."""
        self.root = root.absolute()
        self._configuration = self.root / "slurm.conf"
        self._database_socket = self.root / "database.socket"

    @property
    def environment(self) -> dict[str, str]:
        """Return variables with which SLURM's programs (`sbatch`, …) talk to this cluster."""
        return {"SLURM_CONF": str(self._configuration)}

    def start(self, num_nodes: int = 2, cpus_per_node: int = 4, gpus_per_node: int = 2) -> None:
        """Start nodes n1, n2, … and wait until they take jobs. What an earlier start left is lost.

        Raises:
            UserError: programs are missing, it runs already, or a daemon does not come up.
        """
        require_programs()
        if self.is_running():
            raise UserError(f"the cluster in {self.root} runs already; stop it first")
        self._empty_folder()
        nodes = [f"n{number}" for number in range(1, num_nodes + 1)]
        write_configuration(self.root, nodes, cpus_per_node, gpus_per_node)
        try:
            self._start_munge()
            self._start_accounting()
            controller = self._start_daemon("slurmctld", "-D")
            self._wait_for_nodes(nodes, [controller, *map(self._start_node, nodes)])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel jobs, end nodes and controller, then the database. Nothing if none runs."""
        processes = self._processes()
        if any(process.program == "slurmctld" for process in processes):
            with contextlib.suppress(UserError):
                self.cancel_jobs(seconds=10)
        for daemon in DAEMONS:
            end((process for process in processes if process.program == daemon), STOP_SECONDS)
        kill(self._processes())

    def is_running(self) -> bool:
        """Return True if any process of it is alive."""
        return bool(self._processes())

    def run(self, *command: str, seconds: float = 30) -> str:
        """Return what a program of SLURM prints, asked on this cluster.

        Raises:
            UserError: it failed, or did not answer in time; with what it said.
        """
        try:
            ended = subprocess.run(
                command,
                env=os.environ | self.environment,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{command[0]} did not answer in {seconds:.0f} s") from None
        if ended.returncode:
            raise UserError(f"{command[0]} failed: {ended.stderr.strip() or ended.stdout.strip()}")
        return ended.stdout

    def cancel_jobs(self, seconds: float = 30) -> None:
        """Cancel every job and wait until none is left."""
        self.run("scancel", "--user", str(os.getuid()))
        self._wait_for(lambda: not self.run("squeue", "--noheader"), seconds=seconds)

    def clear(self) -> None:
        """Start the nodes that are dead and cancel every job: as after `start`."""
        names = self.run("sinfo", "--noheader", "--Node", "--format=%N").split()
        alive = {process.node for process in self._processes() if process.program == "slurmd"}
        daemons = [self._start_node(name) for name in sorted(set(names) - alive)]
        self.cancel_jobs()
        self._wait_for_nodes(names, daemons)

    def kill_node(self, name: str) -> None:
        """Kill the node's daemon and all that runs on it at once, as a loss of power does."""
        kill(process for process in self._processes() if process.node == name)

    def restart_node(self, name: str) -> None:
        """Start the daemon of a killed node and wait until the node takes jobs."""
        self._wait_for_nodes([name], [self._start_node(name)])

    def restart_controller(self) -> None:
        """Stop the controller and start it again with its saved state; jobs run on meanwhile."""
        end((p for p in self._processes() if p.program == "slurmctld"), STOP_SECONDS)
        controller = self._start_daemon("slurmctld", "-D")
        self._wait_for(lambda: self._answers("sinfo"), [controller])

    def skip_requeue_wait(self, job_id: int | str) -> None:
        """Start a requeued job now: SLURM holds it back for two minutes."""
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now")

    def __enter__(self) -> Self:
        """Start it, and a guard that stops it when this process ends in any way."""
        # It reads until the pipe closes, which is at the end of this process, whatever ends it.
        script = 'read _; exec "$0" -m slurm.local.cluster stop --dir "$1"'
        self._guard = subprocess.Popen(
            ["sh", "-c", script, sys.executable, self.root],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it, and the guard."""
        self.stop()
        self._guard.kill()
        self._guard.communicate()

    def _processes(self) -> list[Process]:
        return processes_of(self._configuration)

    def _empty_folder(self) -> None:
        if self.root.is_file() or (self.root.exists() and any(self.root.iterdir())):
            if not is_configuration(self._configuration):
                raise UserError(f"{self.root} holds something else than a cluster; name another")
            shutil.rmtree(self.root)
        if len(str(self.root)) > MAX_PATH_LENGTH or " " in str(self.root):
            limits = f"at most {MAX_PATH_LENGTH} characters and no spaces"
            raise UserError(f"SLURM takes a path of {limits}, not {self.root}; name another")
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        (self.root / "state").mkdir()

    def _start_munge(self) -> None:
        munged = self._start_daemon("munged", *munged_flags(self.root))
        self._wait_for((self.root / "munge.socket").exists, [munged])

    def _start_accounting(self) -> None:
        flags = database_flags(self.root)
        # Its user is called root and has no password, nor needs one: the folder is private.
        access = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        install = [path_of("mysql_install_db"), *flags, *access]
        installed = subprocess.run(install, capture_output=True, text=True)
        if installed.returncode:
            raise UserError(f"mysql_install_db failed: {installed.stderr or installed.stdout}")
        address = f"--socket={self._database_socket}"
        pid_file = f"--pid-file={self.root}/mariadbd.pid"
        mariadbd = self._start_daemon("mariadbd", *flags, address, "--skip-networking", pid_file)
        ping = ["mariadb-admin", "--no-defaults", address, "ping"]
        self._wait_for(lambda: self._answers(*ping), [mariadbd])
        slurmdbd = self._start_daemon("slurmdbd", "-D")
        self._wait_for(lambda: self._answers("sacctmgr", "list", "cluster"), [mariadbd, slurmdbd])

    def _start_node(self, name: str) -> Daemon:
        return self._start_daemon("slurmd", "-D", "-N", name, node=name)

    def _start_daemon(self, program: str, *flags: str, node: str = "") -> Daemon:
        """Start it in a session of its own, with what `processes_of` knows it by."""
        marks = self.environment | ({"SLURMD_NODENAME": node} if node else {})
        # Without what a job around this process says of itself.
        outside = {name: text for name, text in os.environ.items() if not name.startswith("SLURM")}
        with (self.root / f"{node or program}.out").open("w") as output:
            return subprocess.Popen(
                [path_of(program), *flags],
                env=outside | marks | {"MYSQL_UNIX_PORT": str(self._database_socket)},
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _wait_for_nodes(self, names: Sequence[str], daemons: Sequence[Daemon]) -> None:
        def take_jobs() -> bool:
            with contextlib.suppress(UserError):  # the controller is not up yet
                told = self.run("sinfo", "--noheader", "--Node", "--format=%N %T")
                states = dict(line.split() for line in told.splitlines())
                return all(states.get(name) in ("idle", "mixed", "allocated") for name in names)
            return False

        self._wait_for(take_jobs, daemons)

    def _wait_for(
        self, condition: Callable[[], bool], daemons: Sequence[Daemon] = (), seconds: float = 60
    ) -> None:
        def holds() -> bool:
            if any(daemon.poll() is not None for daemon in daemons):
                raise UserError(f"a daemon of SLURM has ended; the files in {self.root} say why")
            return condition()

        try:
            wait_until(holds, seconds)
        except TimeoutError:
            raise UserError(
                f"SLURM did not get there in {seconds:.0f} s; the files in {self.root} say why"
            ) from None

    def _answers(self, *command: str) -> bool:
        with contextlib.suppress(UserError):
            self.run(*command)
            return True
        return False


def use_local_cluster(folder: Path = DEFAULT_FOLDER) -> None:
    """Point SLURM's programs at the cluster in `folder` if it runs and no other is known."""
    cluster = LocalCluster(folder)
    if "SLURM_CONF" in os.environ or SYSTEM_CONFIGURATION.exists() or not cluster.is_running():
        return
    os.environ.update(cluster.environment)


@dataclass(frozen=True)
class FolderOptions:
    """Which cluster."""

    dir: Path = option(DEFAULT_FOLDER, metavar="DIR", help="folder of the cluster")


@dataclass(frozen=True)
class StartOptions(FolderOptions):
    """Which cluster, and its size."""

    nodes: int = option(2, help="nodes, which are called n1, n2, ...")
    cpus_per_node: int = option(4, help="processor cores that a node claims to have")
    gpus_per_node: int = option(2, help="GPUs that a node claims to have")

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.nodes < 1 or self.cpus_per_node < 1 or self.gpus_per_node < 0:
            raise UserError("a cluster needs at least one node with one processor core")


def start(options: StartOptions) -> None:
    """Start a SLURM on this machine."""
    cluster = LocalCluster(options.dir)
    if cluster.is_running():
        print(f"the cluster in {options.dir} runs already")
    else:
        cluster.start(options.nodes, options.cpus_per_node, options.gpus_per_node)
        print(f"started a cluster in {options.dir}")
    status(options)
    print("\nFor sbatch, squeue, sinfo and the like:")
    print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}")


def stop(options: FolderOptions) -> None:
    """Stop it: jobs, nodes, controller and database."""
    cluster = LocalCluster(options.dir)
    was_running = cluster.is_running()
    cluster.stop()
    print(f"{'stopped the' if was_running else 'there is no'} cluster in {options.dir}")


def status(options: FolderOptions) -> int:
    """Show its nodes and jobs; status 1 if it does not run."""
    cluster = LocalCluster(options.dir)
    if not cluster.is_running():
        print(f"there is no cluster in {options.dir}")
        return 1
    print(cluster.run("sinfo"), cluster.run("squeue"), sep="\n", end="")
    return 0


if __name__ == "__main__":
    main(
        {
            "start": (start, StartOptions),
            "stop": (stop, FolderOptions),
            "status": (status, FolderOptions),
        }
    )
