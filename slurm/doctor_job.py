"""The doctor as a job: every node examines itself, then all ranks add up numbers together.

python -m slurm.doctor_job FOLDER is a rank's part of that sum, in a process of its own, which the
rank ends when its time is over.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pix2pix.doctor.examine import CHECKS, examine
from pix2pix.doctor.findings import Finding, Patient, fails
from pix2pix.system.bounded import run_bounded
from pix2pix.system.durable import publish_json
from slurm.job import in_job
from slurm.process_group import Member, join

SUM = "all-reduce (job)"
SUM_SECONDS = 180  # for all ranks to import torch, to meet and to add up
_RATE = "pix2pix doctor rate: "  # on a line of its own, between words of libraries


@dataclass(frozen=True)
class DoctorJob:
    """What each rank does; the rows lie in `folder`, which all nodes share.

    patience: seconds in which every node has examined itself, from the first one that has.
    """

    patient: Patient
    folder: Path
    snapshot: Path | None = None
    patience: float = sum(seconds for *_, seconds in CHECKS)

    def __call__(self) -> int:
        """Examine this node, by its first rank, and take part in the sum of all ranks.

        Returns 0 whatever was found: the table tells it, and other ranks go on.
        """
        with in_job(self.folder, self.snapshot) as (member, _):
            rows = rows_folder(self.folder, member.attempt)
            rows.mkdir(parents=True, exist_ok=True)
            if member.local_rank == 0:
                _write(rows, f"node_of_rank_{member.rank:05d}", member, [*examine(self.patient)])
            if member.world_size > 1:
                row = self._sum(member, rows)
                if row is not None:
                    _write(rows, f"sum_of_rank_{member.rank:05d}", member, [row])
        return 0

    def _sum(self, member: Member, rows: Path) -> Finding | None:
        """Return what rank 0 measured, or why this rank could not; None: others tell."""
        absent = _wait_for_nodes(rows, member.num_nodes, self.patience)
        if absent:
            text = f"not tried: {absent} of {member.num_nodes} nodes gave no rows"
            return fails(SUM, text, "see the rows of the nodes") if member.rank == 0 else None
        command = [sys.executable, "-m", "slurm.doctor_job", str(self.folder)]
        ended = run_bounded(command, SUM_SECONDS)
        if ended.status is None:
            cure = "the network between the nodes: NCCL_DEBUG=INFO, NCCL_SOCKET_IFNAME"
            return fails(SUM, f"not done in {SUM_SECONDS} s", cure) if member.rank == 0 else None
        rates = [line for line in ended.output.splitlines() if line.startswith(_RATE)]
        if ended.status or not rates:
            words = ended.errors.strip().splitlines() or [f"status {ended.status}"]
            print(ended.errors, file=sys.stderr)
            return fails(SUM, words[-1][:300], f"the log has what {member.name} printed")
        if member.rank > 0:
            return None
        from pix2pix.doctor.all_reduce import rate_row

        kind, rate = rates[-1].removeprefix(_RATE).split()
        return rate_row(SUM, float(rate), member.world_size, kind)


def rows_folder(folder: Path, attempt: str) -> Path:
    """Return where the ranks of a start of a job leave their rows."""
    return folder / f"{attempt}.rows"


def _write(rows: Path, name: str, member: Member, findings: Sequence[Finding]) -> None:
    content = {"node": member.node, "rows": [asdict(finding) for finding in findings]}
    publish_json(rows / f"{name}.json", content)


def _wait_for_nodes(rows: Path, count: int, seconds: float) -> int:
    """Wait for the rows of all nodes, for a bounded time; returns how many are missing."""
    deadline = time.monotonic() + seconds
    while True:
        # Listing a folder makes a network file system look again; asking for a name may not.
        found = sum(name.startswith("node_of_rank_") for name in os.listdir(rows))
        if found >= count or time.monotonic() > deadline:
            return max(0, count - found)
        time.sleep(0.5)


def _add_up(folder: Path) -> None:
    """Meet the other ranks, and print the kind of the device and the rate."""
    member = Member.of(os.environ)
    with join(member, folder, SUM_SECONDS / 60) as distributed:
        from pix2pix.doctor.all_reduce import measure

        rate = measure(distributed.device)
        print(f"{_RATE}{distributed.device.type} {rate}", flush=True)


if __name__ == "__main__":
    _add_up(Path(sys.argv[1]))
