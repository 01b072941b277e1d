"""Where and with what a job runs: the flags of the cluster, and what sbatch is told of them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pix2pix.cli.options import option
from pix2pix.errors import UserError

_LINE = re.compile(r"[a-z][a-z-]*(=.*)?")
_SCHEDULED = (  # what a machine of one's own does not know
    *("partition", "account", "qos", "constraint", "reservation", "nodelist", "exclude"),
    *("memory", "cpus_per_task", "comment", "sbatch", "setup"),
)


def default_presets() -> Path:
    """Where people keep settings of their own (XDG base directory specification)."""
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
    tasks_per_node: int | None = option(
        None, help="ranks of each node without GPUs; none: one for each GPU, or one"
    )
    cpus_per_task: int | None = option(None, help="cores of each rank; none: SLURM's default")
    memory: str | None = option(None, help="memory of each node, such as 64G")
    time: str | None = option(
        None, help="limit of each start: minutes, or [D-]HH:MM:SS", metavar="TIME"
    )
    save_seconds: int = option(
        120, help="SLURM says so long before the limit that it is time to save", unit="seconds"
    )

    job_name: str | None = option(None, help="none: the name of the folder", group="more of it")
    comment: str | None = option(None, help="comment of the job")
    setup: str | None = option(None, help="shell lines before the job, such as module load cuda")
    sbatch: tuple[str, ...] = option((), help="more lines of sbatch: mail-type=END,exclusive")

    def __post_init__(self) -> None:
        least = {"nodes": 1, "gpus_per_node": 0, "tasks_per_node": 1, "cpus_per_task": 1}
        for name, smallest in (least | {"save_seconds": 1}).items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"{name} must be at least {smallest}, not {value}")
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise UserError(
                f"with gpus_per_node {self.gpus_per_node} there is one rank for each GPU; leave "
                "tasks_per_node out"
            )
        if self.cluster == "local" and self.nodes > 1:
            raise UserError("cluster local is one node; give --tasks_per_node for more ranks")
        if self.cluster == "debug" and self.world_size > 1:
            raise UserError("cluster debug is one rank in this process; try --cluster local")
        minutes = self.time_minutes
        if minutes is not None and 60 * minutes <= self.save_seconds:
            raise UserError(
                f"time {self.time} is over when it is time to save, {self.save_seconds} s before "
                "its end; give more --time or less --save_seconds"
            )
        for line in self.sbatch:
            if not _LINE.fullmatch(line):
                raise UserError(f"sbatch takes NAME=VALUE or NAME, as mail-type=END, not '{line}'")

    @staticmethod
    def preset_of(texts: Mapping[str, Any]) -> tuple[Path, str] | None:
        """(file, entry) with more of these flags, if --preset names one."""
        if "preset" not in texts:
            return None
        named = texts.get("presets")
        return Path(os.path.expanduser(named)) if named else default_presets(), texts["preset"]

    @property
    def ranks_per_node(self) -> int:
        """Processes on each node: one for each GPU."""
        return self.tasks_per_node or self.gpus_per_node or 1

    @property
    def world_size(self) -> int:
        """Processes of the job."""
        return self.nodes * self.ranks_per_node

    @property
    def time_minutes(self) -> int | None:
        """The time limit in whole minutes, as SLURM rounds it: up. None: the partition's."""
        return None if self.time is None else minutes_of(self.time)

    @property
    def unused_locally(self) -> list[str]:
        """Flags given that only SLURM can follow."""
        return [name for name in _SCHEDULED if getattr(self, name)]

    def script_parameters(self, name: str) -> dict[str, Any]:
        """What submitit makes the lines of the sbatch script from."""
        more: dict[str, Any] = {"requeue": True}
        for line in self.sbatch:
            key, _, value = line.partition("=")
            more[key] = value or True
        if self.reservation:
            more["reservation"] = self.reservation
        srun = ["--kill-on-bad-exit=1"]  # or the other ranks wait for the one that is gone
        if self.cpus_per_task:  # since 22.05 srun does not take it over from sbatch
            srun.append(f"--cpus-per-task={self.cpus_per_task}")
        given = {
            "job_name": self.job_name or name,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodelist": self.nodelist,
            "exclude": self.exclude,
            "comment": self.comment,
            "nodes": self.nodes,
            "ntasks_per_node": self.ranks_per_node,
            "gpus_per_node": self.gpus_per_node or None,
            "cpus_per_task": self.cpus_per_task,
            "mem": self.memory,
            "time": self.time_minutes,
            "signal_delay_s": self.save_seconds,
            "stderr_to_stdout": True,
            "additional_parameters": more,
            "srun_args": srun,
        }
        return {key: value for key, value in given.items() if value is not None}


def minutes_of(text: str) -> int:
    """Minutes of a time as sbatch takes it, rounded up.

    Forms: M, M:S, H:M:S, D-H, D-H:M and D-H:M:S. Raises UserError for any other.
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
