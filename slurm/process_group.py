"""Rendezvous of the ranks of a job: ranks from SLURM's environment, the address from a file.

Rank 0 opens the store on a free port and publishes address and port in the run directory, so no
port can be taken by another job, and no name of a node has to resolve.
"""

import fcntl
import json
import os
import re
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pix2pix.errors import UserError
from pix2pix.system.durable import publish_json
from slurm.scheduler import job_id_of, node_address

if TYPE_CHECKING:
    from pix2pix.run.distributed import Distributed

JOIN_MINUTES = 15  # for the slowest node to import torch from a busy file system
SIOCGIFADDR = 0x8915  # netdevice(7), Linux


@dataclass(frozen=True)
class Member:
    """A process among those of its job.

    job_id: None outside of any job. restarts: how often SLURM has requeued the job. num_cores: what
    --cpus_per_task gave it; None where nothing was asked for.
    """

    job_id: str | None = None
    is_slurm: bool = False
    restarts: int = 0
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    num_nodes: int = 1
    node: str = "this machine"
    num_cores: int | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Member":
        """Return this process, as SLURM or submitit's local executor tell it."""
        match environment.get("SUBMITIT_EXECUTOR"):
            case "slurm":
                return cls._of_slurm(environment)
            case "local":
                size = int(environment["SUBMITIT_LOCAL_NTASKS"])
                rank = int(environment["SUBMITIT_LOCAL_GLOBALID"])
                return cls(
                    job_id=environment["SUBMITIT_LOCAL_JOB_ID"],
                    rank=rank,
                    world_size=size,
                    local_rank=rank,
                    local_world_size=size,
                )
        return cls()

    @classmethod
    def _of_slurm(cls, environment: Mapping[str, str]) -> "Member":
        node_index = int(environment["SLURM_NODEID"])
        cores = environment.get("SLURM_CPUS_PER_TASK")
        return cls(
            job_id=job_id_of(environment),
            is_slurm=True,
            restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
            rank=int(environment["SLURM_PROCID"]),
            world_size=int(environment["SLURM_STEP_NUM_TASKS"]),
            local_rank=int(environment["SLURM_LOCALID"]),
            local_world_size=tasks_by_node(environment["SLURM_STEP_TASKS_PER_NODE"])[node_index],
            num_nodes=int(environment["SLURM_STEP_NUM_NODES"]),
            node=environment.get("SLURMD_NODENAME", "this machine"),
            num_cores=int(cores) if cores else None,
        )

    @property
    def attempt(self) -> str:
        """Return which start of which job this is: `12_0`."""
        return f"{self.job_id}_{self.restarts}"

    @property
    def name(self) -> str:
        """Return the name of this process for people."""
        return f"rank {self.rank} of {self.world_size} on {self.node}"


def tasks_by_node(text: str) -> list[int]:
    """Return [2, 2, 1] for SLURM's `2(x2),1`."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not found:
            raise ValueError(f"can't read SLURM_STEP_TASKS_PER_NODE={text}")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def join(member: Member, folder: Path, timeout_minutes: float) -> "Distributed":
    """Meet the other ranks, and be one of them, as under `accelerate launch`.

    Args:
        member: this process.
        folder: seen by all nodes.
        timeout_minutes: of a collective.

    Raises:
        UserError: rank 0 does not show up.
    """
    rendezvous_file = folder / f".rendezvous_{member.attempt}.json"
    if member.world_size > 1:
        _export(member)
        store = _open_store(rendezvous_file, member.num_nodes) if member.rank == 0 else None
        place = _read_place(rendezvous_file)
        os.environ.update(MASTER_ADDR=place["address"], MASTER_PORT=str(place["port"]))
        if member.num_nodes > 1:
            # gloo would take the address that the own host name resolves to: often 127.0.1.1.
            interface = interface_towards(place["address"])
            if interface:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)

    from pix2pix.run.distributed import Distributed

    # SLURM need not bind ranks to cores: unasked, each would take all that it sees.
    distributed = Distributed(timeout_minutes, member.num_cores)
    if member.world_size > 1:
        distributed.barrier()
        if member.rank == 0:
            rendezvous_file.unlink()
            _keep.append(store)
    return distributed


_keep: list[object] = []  # the store serves for as long as this process lives


def _export(member: Member) -> None:
    os.environ.update(
        RANK=str(member.rank),
        WORLD_SIZE=str(member.world_size),
        LOCAL_RANK=str(member.local_rank),
        LOCAL_WORLD_SIZE=str(member.local_world_size),
    )


def _open_store(rendezvous_file: Path, num_nodes: int) -> object:
    """Serve the store on a port that the system chose, and say where.

    multi_tenant: init_process_group opens the same store again, in this process, and is given
    this one (documented at torch.distributed.TCPStore).
    """
    from torch.distributed import TCPStore

    address = own_address(num_nodes)
    store = TCPStore(
        address,
        0,
        is_master=True,
        wait_for_workers=False,
        multi_tenant=True,
        timeout=timedelta(minutes=JOIN_MINUTES),
    )
    publish_json(rendezvous_file, {"address": address, "port": store.port})
    return store


def _read_place(rendezvous_file: Path) -> dict[str, str]:
    deadline = time.monotonic() + 60 * JOIN_MINUTES
    while time.monotonic() < deadline:
        # Listing a folder makes a network file system look again; asking for a name may not.
        if rendezvous_file.name in os.listdir(rendezvous_file.parent):
            content: dict[str, str] = json.loads(rendezvous_file.read_text())
            return content
        time.sleep(0.2)
    raise UserError(
        f"rank 0 has not shown up in {JOIN_MINUTES} minutes; is {rendezvous_file.parent} on a "
        "file system that all nodes share?"
    )


def own_address(num_nodes: int) -> str:
    """Return an address of this node by which the other nodes of the job reach it."""
    if num_nodes == 1:
        return "127.0.0.1"
    candidates = (
        # Where srun listens for every task of the step: a way that is known to work. It is this
        # node, unless somebody runs srun elsewhere.
        lambda: os.environ.get("SLURM_LAUNCH_NODE_IPADDR"),
        lambda: node_address(os.environ.get("SLURMD_NODENAME", "")),
        socket.gethostname,
    )
    for candidate in candidates:
        address = candidate()
        if address and _is_mine(address):
            return address
    raise UserError(
        "no address of this node is known to SLURM or the system; set NodeAddr in slurm.conf"
    )


def _is_mine(address: str) -> bool:
    try:
        family, kind, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def interface_towards(address: str) -> str | None:
    """Return the network interface of this machine that leads to `address`, if it has IPv4."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing
            mine = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                if _address_of(probe, name) == mine:
                    return name
        except OSError:
            pass
    return None


def _address_of(probe: socket.socket, interface: str) -> str | None:
    request = struct.pack("256s", interface.encode()[:15])
    try:
        answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
    except OSError:  # it has none
        return None
    return socket.inet_ntoa(answer[20:24])
