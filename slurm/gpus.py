"""The number of GPUs per node, from whichever flag asks for them: one rank for each."""

import re
from typing import NamedTuple

from pix2pix.errors import UserError

_GPU = re.compile(r"(?:gres[:/])?gpu(?::(?P<type>[A-Za-z][^:]*))?(?::(?P<count>\d+))?")


class Gpus(NamedTuple):
    """GPUs of one node; type is None where any will do."""

    number: int = 0
    type: str | None = None

    def __str__(self) -> str:
        """Return it as --gpus-per-node takes it: `4` or `a100:4`."""
        return f"{self.type}:{self.number}" if self.type else str(self.number)


def gpus_in(gres: str) -> Gpus:
    """Return the GPUs among generic resources as sbatch's --gres takes them.

    Forms: `gpu`, `gpu:4`, `gpu:a100`, `gpu:a100:4`, and others beside them (`gpu:4,nvme:1`).

    Raises:
        UserError: it names GPUs in another way, or of several types: ranks can't be counted.
    """
    items = [item for item in gres.split(",") if re.match(r"(gres[:/])?gpu\b", item)]
    if not items:
        return Gpus()
    found = _GPU.fullmatch(items[0])
    if found is None or len(items) > 1:
        raise UserError(
            f"gres {gres} does not tell how many GPUs of one type a node gives; write gpu:4 or "
            "gpu:a100:4"
        )
    return Gpus(int(found["count"] or 1), found["type"])


def gpus_of_node(gpus_per_node: int, gpu_type: str | None, gres: str | None) -> Gpus:
    """Return what three flags together ask of each node.

    Raises:
        UserError: they contradict each other.
    """
    named = gpus_in(gres or "")
    if named.number and gpus_per_node not in (0, named.number):
        raise UserError(
            f"gres {gres} are {named.number} GPUs of each node, and gpus_per_node says "
            f"{gpus_per_node}; give one of the two"
        )
    if named.number and gpu_type and named.type != gpu_type:
        raise UserError(
            f"gres {gres} and gpu_type {gpu_type} contradict each other; write the type into gres: "
            f"gpu:{gpu_type}:{named.number}"
        )
    count = named.number or gpus_per_node
    if gpu_type and not count:
        raise UserError(f"gpu_type {gpu_type} needs a number: give --gpus_per_node, too")
    return Gpus(count, named.type or gpu_type)
