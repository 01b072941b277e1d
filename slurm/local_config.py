"""The configuration files of a cluster on one machine (`local_cluster.py`), with their reasons.

Names and meanings are those of the manual pages slurm.conf(5), slurmdbd.conf(5) and gres.conf(5).
"""

import os
import pwd
import random
import socket
from pathlib import Path

GRACE_SECONDS = 10  # between the SIGTERM of a preemption and the SIGKILL


def write_configuration(
    root: Path, nodes: list[str], cpus_per_node: int, gpus_per_node: int
) -> None:
    """Write slurm.conf, slurmdbd.conf, gres.conf and the key of munge into `root`, with ports that
    are free now.
    """
    controller_port, database_port, *node_ports = _free_ports(2 + len(nodes))
    host = socket.gethostname().partition(".")[0]
    user = pwd.getpwuid(os.getuid()).pw_name
    # Devices that no program opens: one task per GPU can be tried without any.
    devices = [root / "devices" / f"gpu{index}" for index in range(gpus_per_node)]
    for device in devices:
        device.parent.mkdir(exist_ok=True)
        device.touch()
    gres = "".join(f"Name=gpu File={device}\n" for device in devices)
    _write_private(root / "gres.conf", gres.encode())
    _write_private(root / "munge.key", os.urandom(64))
    own_gpus = f" Gres=gpu:{gpus_per_node}" if gpus_per_node else ""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    node_lines = "".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
        f" CPUs={cpus_per_node} RealMemory={memory}{own_gpus}\n"
        for name, port in zip(nodes, node_ports, strict=True)
    )
    common = f"AuthType=auth/munge\nAuthInfo=socket={root}/munge.socket\nSlurmUser={user}\n"
    _write_private(
        root / "slurmdbd.conf",
        f"""{common}\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={database_port}
LogFile={root}/slurmdbd.log
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
""".encode(),
    )
    _write_private(
        root / "slurm.conf",
        f"""{common}\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmctldLogFile={root}/slurmctld.log
SlurmctldPidFile={root}/slurmctld.pid
StateSaveLocation={root}/state
SlurmdUser={user}
SlurmdLogFile={root}/%n.log
SlurmdPidFile={root}/%n.pid
SlurmdSpoolDir={root}/%n
CredType=cred/munge
# nobody outside of this machine can reach the daemons
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
# several nodes on one machine, without control groups; they may claim more than it has
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_port}
AccountingStoragePass={root}/munge.socket
AccountingStorageTRES=gres/gpu
# quick to start a job, to notice a dead node and to take it back
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdTimeout=10
KillWait=5
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{node_lines}\
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime={GRACE_SECONDS}
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
""".encode(),
    )


def _write_private(path: Path, content: bytes) -> None:
    """slurmdbd and munged refuse files that others can read."""
    path.touch(mode=0o600)
    path.write_bytes(content)


def _free_ports(count: int) -> list[int]:
    """Below those that the system gives to outgoing connections (32768 and up)."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between 20000 and 32000")
