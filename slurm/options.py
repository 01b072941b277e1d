"""The flags of the cluster, and the lines of sbatch that are made of them."""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pix2pix.cli.options import option
from pix2pix.errors import UserError
from slurm.gpus import Gpus, gpus_of_node

_LINE = re.compile(r"[a-z][a-z-]*(=.*)?")
_SCHEDULED = (  # what a machine of one's own does not know
    *("partition", "account", "qos", "constraint", "reservation", "nodelist", "exclude"),
    *("gpu_type", "memory", "cpus_per_task", "comment", "sbatch", "srun", "setup", "python"),
)
# Lines that have a flag here, which counts ranks or plans the end of a start with them.
_FLAG_OF = {"mem": "memory", "ntasks-per-node": "tasks_per_node", "signal": "save_seconds"} | {
    name.replace("_", "-"): name
    for name in (
        *("partition", "account", "qos", "constraint", "reservation", "nodelist", "exclude"),
        *("nodes", "gpus_per_node", "cpus_per_task", "time", "job_name", "comment"),
    )
}
_COUNTED = {"ntasks", "gpus", "gpus-per-task", "array", "output", "error", "open-mode"}
_COUNTED_OF_SRUN = _FLAG_OF.keys() | _COUNTED | {"kill-on-bad-exit"}


def default_presets() -> Path:
    """Return where people keep settings of their own (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / (
        "pix2pix/clusters.yaml"
    )


@dataclass(frozen=True)
class ClusterOptions:
    """Flags of every command of `python -m slurm.submit`.

    Raises:
        UserError: a value is out of its range, or two contradict each other.
    """

    cluster: Literal["slurm", "local", "debug"] = option(
        "slurm",
        help="slurm; local: processes of this machine; debug: one rank in this process",
        group="where it runs",
    )
    dry_run: bool = option(False, help="print script and configuration, queue and write nothing")
    preset: str | None = option(None, help="entry of --presets with more of these flags")
    presets: Path | None = option(
        None, help="YAML file, NAME: {flag: value}; none: ~/.config/pix2pix/clusters.yaml"
    )
    partition: str | None = option(None, help="partition; none: the cluster's default")
    account: str | None = option(None, help="account to charge")
    qos: str | None = option(None, help="quality of service")
    constraint: str | None = option(None, help="features that the nodes must have")
    reservation: str | None = option(None, help="reservation to use")
    nodelist: str | None = option(None, help="nodes that must be among them")
    exclude: str | None = option(None, help="nodes to keep away from")

    nodes: int = option(1, help="number of nodes", group="what it gets")
    gpus_per_node: int = option(0, help="GPUs of each node, with one rank each")
    gpu_type: str | None = option(None, help="their type, such as a100; none: any")
    gres: str | None = option(
        None, help="instead, where a cluster wants it so: gpu:4 or gpu:a100:4", metavar="LIST"
    )
    tasks_per_node: int | None = option(
        None, help="ranks of each node without GPUs; none: one for each GPU, or one"
    )
    cpus_per_task: int | None = option(None, help="cores of each rank; none: SLURM's default")
    memory: str | None = option(None, help="memory of each node, such as 64G")
    time: str | None = option(
        None,
        help="limit of each start: minutes, or [D-]HH:MM:SS; none: the partition's",
        metavar="TIME",
    )
    save_seconds: int = option(
        120, help="SLURM says so long before the limit that it is time to save", unit="seconds"
    )

    job_name: str | None = option(None, help="none: the name of the folder", group="more of it")
    comment: str | None = option(None, help="comment of the job")
    setup: str | None = option(None, help="shell lines before the job, such as module load cuda")
    sbatch: tuple[str, ...] = option(
        (), help="one more line of sbatch, such as mail-type=END,FAIL", many="repeats"
    )
    srun: tuple[str, ...] = option(
        (), help="one more flag of srun, such as container-image=FILE", many="repeats"
    )
    python: str | None = option(
        None,
        help="command of Python on the nodes; none: this one, or the container's with --srun "
        "container-image",
        metavar="COMMAND",
    )

    def __post_init__(self) -> None:
        """Check the values, and each against the others."""
        least = {"nodes": 1, "gpus_per_node": 0, "tasks_per_node": 1, "cpus_per_task": 1}
        for name, smallest in (least | {"save_seconds": 1}).items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"{name} must be at least {smallest}, not {value}")
        self._check_lines()
        if self.gpus.number and self.tasks_per_node not in (None, self.gpus.number):
            raise UserError(
                f"with {self.gpus.number} GPUs of each node there is one rank for each GPU; leave "
                "tasks_per_node out"
            )
        if self.cluster == "local" and self.nodes > 1:
            raise UserError("cluster local is one node; give --tasks_per_node for more ranks")
        if self.cluster == "debug" and self.world_size > 1:
            raise UserError("cluster debug is one rank in this process; try --cluster local")
        if self.time_minutes is not None:
            self.check_time_to_save(self.time_minutes, f"time {self.time}")

    def _check_lines(self) -> None:
        """Raise UserError for a line of sbatch or srun that is none, or that a flag here is for."""
        for flag, lines in (("sbatch", self.sbatch), ("srun", self.srun)):
            for line in lines:
                if not _LINE.fullmatch(line):
                    raise UserError(
                        f"{flag} takes NAME=VALUE or NAME, as mail-type=END, not '{line}'"
                    )
            names = [line.partition("=")[0] for line in lines]
            for name in names:
                if flag == "sbatch" and name in _FLAG_OF:
                    raise UserError(f"for --sbatch {name} there is the flag --{_FLAG_OF[name]}")
                if name in (_COUNTED if flag == "sbatch" else _COUNTED_OF_SRUN):
                    raise UserError(
                        f"--{flag} {name} would change how this job counts its ranks or finds its "
                        "logs; nodes, gpus_per_node, tasks_per_node and cpus_per_task say how many"
                    )
                if flag == "sbatch" and names.count(name) > 1:
                    raise UserError(f"--sbatch {name} is there {names.count(name)} times")
        if self.gres and self._line_of_sbatch("gres"):
            raise UserError("--gres and --sbatch gres are the same; give one of them")

    def _line_of_sbatch(self, name: str) -> str | None:
        """Return the value of a line of --sbatch, or None."""
        values = [line.partition("=")[2] for line in self.sbatch if line.startswith(f"{name}=")]
        return values[0] if values else None

    def check_time_to_save(self, minutes: int, limit: str) -> None:
        """Raise UserError where a start is over before it may begin to save.

        Args:
            minutes: how long a start may run.
            limit: what says so, for the message.
        """
        if 60 * minutes <= self.save_seconds:
            raise UserError(
                f"{limit} is over when it is time to save, {self.save_seconds} s before its end; "
                "give more --time or less --save_seconds"
            )

    @staticmethod
    def preset_of(texts: Mapping[str, Any]) -> tuple[Path, str] | None:
        """Return (file, entry) with more of these flags, if --preset names one."""
        if "preset" not in texts:
            return None
        named = texts.get("presets")
        return Path(os.path.expanduser(named)) if named else default_presets(), texts["preset"]

    @property
    def gpus(self) -> Gpus:
        """Return the GPUs of each node, by whichever flag they were asked for."""
        gres = self.gres or self._line_of_sbatch("gres")
        return gpus_of_node(self.gpus_per_node, self.gpu_type, gres)

    @property
    def ranks_per_node(self) -> int:
        """Return the number of processes on each node: one for each GPU."""
        return self.tasks_per_node or self.gpus.number or 1

    @property
    def python_command(self) -> str:
        """Return the command with which the shell of the nodes starts Python."""
        if self.python is not None:
            return self.python
        in_container = any(line.startswith("container-") for line in self.srun)
        return "python" if in_container else shlex.quote(sys.executable)

    @property
    def world_size(self) -> int:
        """Return the number of processes of the job."""
        return self.nodes * self.ranks_per_node

    @property
    def time_minutes(self) -> int | None:
        """Return the time limit in minutes, rounded up as SLURM does. None: the partition's."""
        return None if self.time is None else minutes_of(self.time)

    @property
    def unused_locally(self) -> list[str]:
        """Return the flags given that only SLURM can follow."""
        return [name for name in _SCHEDULED if getattr(self, name)]

    def script_parameters(self, name: str) -> dict[str, Any]:
        """Return what submitit makes the lines of the sbatch script from.

        None means no line: submitit has a time limit and a key to charge of its own.
        """
        more: dict[str, Any] = {"requeue": True, "reservation": self.reservation}
        for line in self.sbatch:
            key, _, value = line.partition("=")
            more[key] = value or True
        if "no-requeue" in more:
            del more["requeue"]
        srun = ["--kill-on-bad-exit=1"]  # or the other ranks wait for the one that is gone
        if self.cpus_per_task:  # since 22.05 srun does not take it over from sbatch
            srun.append(f"--cpus-per-task={self.cpus_per_task}")
        gpus = None if self.gres or "gres" in more else self.gpus
        return {
            "job_name": self.job_name or name,
            "partition": self.partition,
            "account": self.account,
            "wckey": None,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodelist": self.nodelist,
            "exclude": self.exclude,
            "comment": self.comment,
            "nodes": self.nodes,
            "ntasks_per_node": self.ranks_per_node,
            "gpus_per_node": str(gpus) if gpus and gpus.number else None,
            "gres": self.gres,
            "cpus_per_task": self.cpus_per_task,
            "mem": self.memory,
            "time": self.time_minutes,
            "signal_delay_s": self.save_seconds,
            "stderr_to_stdout": True,
            "additional_parameters": {key: value for key, value in more.items() if value},
            "srun_args": srun + [f"--{line}" for line in self.srun],
        }


def minutes_of(text: str) -> int:
    """Return the minutes of a time as sbatch takes it, rounded up.

    Forms: M, M:S, H:M:S, D-H, D-H:M and D-H:M:S.

    Raises:
        UserError: it has another form, or is less than a minute.
    """
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    fits = len(parts) <= 3 and all(part.isdecimal() for part in parts)
    if not fits or (dash and not days.isdecimal()):
        raise UserError(f"time takes minutes, or [D-]HH:MM:SS such as 1-12:00:00, not '{text}'")
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = numbers + [0] * (3 - len(numbers))
    else:
        hours = numbers.pop(0) if len(numbers) == 3 else 0
        minutes, seconds = numbers + [0] * (2 - len(numbers))
    total = int(days or 0) * 1440 + hours * 60 + minutes + -(-seconds // 60)
    if total < 1:
        raise UserError(f"time {text} is no time; give at least a minute")
    return total
