"""Processes of a benchmark: their environment, and what they send to each other (no torch)."""

import contextlib
import os
import socket
import stat
import struct

_TCP_INFO_ACKED = 120  # bytes before tcpi_bytes_acked in the kernel's struct tcp_info, u64


def environments(num_processes: int) -> list[dict[str, str]]:
    """Return the environment of each rank, as a launcher would set it."""
    if num_processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


def bytes_sent() -> int:
    """Return the bytes that this process's open TCP connections have delivered so far (Linux).

    The kernel counts them for each connection (TCP_INFO of tcp(7)), headers not included, so what
    other processes send does not matter.
    """
    total = 0
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own one is closed by now
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                total += _acknowledged(descriptor)
    return total


def _acknowledged(descriptor: int) -> int:
    """Return the bytes of a socket that its peer has received; 0 for one that is not TCP."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        internet = connection.family in (socket.AF_INET, socket.AF_INET6)
        if not internet or connection.type != socket.SOCK_STREAM:
            return 0
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    acked: int = struct.unpack_from("Q", info, _TCP_INFO_ACKED)[0]
    return acked
