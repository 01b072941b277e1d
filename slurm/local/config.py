"""Configuration of the daemons of a cluster on one machine (`cluster.py`), with the reasons.

Names and meanings are those of the manual pages slurm.conf(5), slurmdbd.conf(5), gres.conf(5),
munged(8) and mariadbd(8).
"""

import os
import pwd
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from pix2pix.errors import UserError

GPU_TYPE = "a100"  # pretended
GRACE_SECONDS = 10  # from the SIGTERM of a preemption to the SIGKILL

_FIRST_LINE = "# Of a cluster that slurm/local/cluster.py started: its folder may be deleted.\n"
_SLURM_CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmctldLogFile={root}/slurmctld.log
SlurmctldPidFile={root}/slurmctld.pid
StateSaveLocation={root}/state
SlurmUser={user}
SlurmdUser={user}
SlurmdLogFile={root}/%n.log
SlurmdPidFile={root}/%n.pid
SlurmdSpoolDir={root}/%n
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={root}/munge.socket
# Several nodes on one machine, without control groups; together they may claim more than it has.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
# Later than those of an earlier cluster: what a run wrote of an old job is of no new one.
FirstJobId={first_job_id}
# Quick to start a job, to notice a dead node, and to take it back.
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdTimeout=10
KillWait=5
ReturnToService=2
# A job of the partition urgent takes the place of one of main, which waits and starts again.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime={grace_seconds}
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF DefaultTime=30 MaxTime=60
"""
_SLURMDBD_CONF = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={accounting_port}
LogFile={root}/slurmdbd.log
PidFile={root}/slurmdbd.pid
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
"""


def write_configuration(
    root: Path, nodes: Sequence[str], cpus_per_node: int, gpus_per_node: int
) -> None:
    """Write slurm.conf, slurmdbd.conf, gres.conf and a new key for munge into `root`.

    Ports are some that are free now.
    """
    controller_port, accounting_port, *node_ports = _free_ports(2 + len(nodes))
    host = socket.gethostname().partition(".")[0]
    memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    gpus = f"Gres=gpu:{GPU_TYPE}:{gpus_per_node}" if gpus_per_node else ""
    values = {
        "root": root,
        "host": host,
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "controller_port": controller_port,
        "accounting_port": accounting_port,
        "first_job_id": int(time.time()) % 10_000_000,
        "grace_seconds": GRACE_SECONDS,
        "nodes": "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            f" CPUs={cpus_per_node} RealMemory={memory_mib} {gpus}"
            for name, port in zip(nodes, node_ports, strict=True)
        ),
    }
    _write(root / "slurm.conf", (_FIRST_LINE + _SLURM_CONF).format_map(values).encode())
    _write(root / "slurmdbd.conf", _SLURMDBD_CONF.format_map(values).encode())
    _write(root / "gres.conf", _pretend_gpus(root, gpus_per_node).encode())
    _write(root / "munge.key", os.urandom(64))


def is_configuration(path: Path) -> bool:
    """Return True if `path` is a slurm.conf that `write_configuration` wrote."""
    return path.is_file() and path.read_text(errors="replace").startswith(_FIRST_LINE)


def munged_flags(root: Path) -> list[str]:
    """Return flags of munged, which signs messages with a key of this cluster alone."""
    files = ("key-file", "socket", "pid-file", "log-file", "seed-file")
    flags = [f"--{name}={root}/munge.{name.removesuffix('-file')}" for name in files]
    # force: it would rather have a socket that every user can reach
    return ["--foreground", "--force", *flags]


def database_flags(root: Path) -> list[str]:
    """Return flags of mysql_install_db and mariadbd: 90 MB of memory, 30 MB of disk."""
    return [
        "--no-defaults",
        f"--datadir={root}/database",
        *(["--user=root"] if os.getuid() == 0 else []),  # it refuses root, unless root says so
        "--innodb-buffer-pool-size=8M",
        "--innodb-log-file-size=4M",
        "--innodb-flush-log-at-trx-commit=0",  # nothing here must outlive a loss of power
        "--innodb-use-native-aio=0",  # refused in many containers
    ]


def _pretend_gpus(root: Path, count: int) -> str:
    """Make devices that no program opens: one task per GPU can be tried without any."""
    for index in range(count):
        (root / f"gpu{index}").symlink_to("/dev/null")  # SLURM asks that it is a device
    lines = (f"Name=gpu Type={GPU_TYPE} File={root}/gpu{index}\n" for index in range(count))
    return "".join(lines)


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)  # slurmdbd and munged refuse what others can read
    path.write_bytes(content)


def _free_ports(count: int) -> list[int]:
    """Find ports below those that systems give to outgoing connections (32768 and up).

    Processes that start a cluster at the same time look at different places.
    """
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 500 * 20, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise UserError(f"this machine has no {count} free ports between 20000 and 32000")
