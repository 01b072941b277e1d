"""The rows of all nodes of a doctor's job as one table.

    python -m slurm.doctor_table --folder DIR --nodes N

is the last word of the job's script. It needs no torch, and no process of the job.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pix2pix.cli.command_line import main
from pix2pix.cli.help import wrap
from pix2pix.cli.options import option
from pix2pix.doctor.examine import row_text, verdict
from pix2pix.doctor.findings import Finding, fails
from pix2pix.doctor.options import DoctorOptions
from pix2pix.system.durable import publish_json
from pix2pix.system.urls import absolute
from slurm.doctor_job import DoctorJob, rows_folder
from slurm.launch import Launch
from slurm.options import ClusterOptions
from slurm.records import Records
from slurm.scheduler import SchedulerError, ask, attempt_of
from slurm.snapshot import snapshot_path


@dataclass(frozen=True)
class DoctorPlace:
    """Where a doctor's job leaves logs and rows."""

    out: Path = option(
        Path("out/doctor"), help="folder of logs and rows, which all nodes share", metavar="DIR"
    )


@dataclass(frozen=True)
class TableOptions:
    """Flags of `python -m slurm.doctor_table`."""

    folder: Path = option(help="folder of the rows", metavar="DIR")
    nodes: int = option(help="how many nodes there should be")
    attempt: str | None = option(None, help="JOB_RESTARTS; none: those of the job around")
    json: Path | None = option(None, help="write the rows there, too", metavar="FILE")


def doctor_plan(
    cluster: ClusterOptions, out: Path, options: DoctorOptions
) -> tuple[Launch, DoctorJob]:
    """Return the job that examines its nodes, and prints the table when its ranks have ended."""
    options = replace(options, shards=tuple(absolute(place) for place in options.shards))
    table = [sys.executable, "-m", "slurm.doctor_table", f"--folder={out}"]
    table += [f"--nodes={cluster.nodes}"] + ([f"--json={options.json}"] if options.json else [])
    launch = Launch(
        cluster,
        name="doctor",
        folder=out,
        snapshot=snapshot_path(out / "snapshots"),
        last_words=[f'{shlex.join(table)} || [ "$status" != 0 ] || status=1'],
    )
    return launch, DoctorJob(options.patient, out, launch.snapshot)


def local_table(out: Path, options: DoctorOptions) -> int:
    """Print the table of the job that has just run on this machine; returns its exit status."""
    job = Records(out).read("submitted")[-1]["job"]
    return doctor_table(TableOptions(folder=out, nodes=1, attempt=f"{job}_0", json=options.json))


def doctor_table(options: TableOptions) -> int:
    """Print what all nodes found as one table. Exits with status 1 if a row fails."""
    attempt = options.attempt or attempt_of(os.environ)
    by_node, sums = _read(rows_folder(options.folder, attempt))
    rows = [*_merged(by_node), *dict.fromkeys(sums)]
    if len(by_node) < options.nodes:
        rows.append(_missing(options, attempt, by_node))
    count = f"{options.nodes} node{'s' if options.nodes > 1 else ''}"
    print(wrap(f"{count}: {', '.join(by_node) or 'none answered'}"))
    for row in rows:
        print(row_text(row))
    print(verdict(rows))
    if options.json:
        publish_json(options.json, {"rows": [asdict(row) for row in rows]})
    return 1 if any(row.status == "fails" for row in rows) else 0


def _read(folder: Path) -> tuple[dict[str, list[Finding]], list[Finding]]:
    """Return the rows of each node, and those on the sum of all."""
    by_node, sums = {}, []
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text())
        findings = [Finding(**row) for row in content["rows"]]
        if file.name.startswith("node"):
            by_node[content["node"]] = findings
        else:
            sums += findings
    return by_node, sums


def _merged(by_node: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Return every row once, in the order of the checks; where nodes differ, with their names."""
    nodes_of: dict[Finding, list[str]] = {}
    for node, findings in by_node.items():
        for finding in findings:
            nodes_of.setdefault(finding, []).append(node)
    order = list(dict.fromkeys(finding.what for finding in nodes_of))
    rows = sorted(nodes_of, key=lambda finding: order.index(finding.what))
    return [
        row
        if len(nodes_of[row]) == len(by_node)
        else replace(row, text=f"{', '.join(nodes_of[row])}: {row.text}")
        for row in rows
    ]


def _missing(options: TableOptions, attempt: str, by_node: Mapping[str, object]) -> Finding:
    """Return a row on the nodes that gave none, with the first error that a rank told."""
    absent = [name for name in _names() if name not in by_node]
    who = ", ".join(absent) or f"{options.nodes - len(by_node)} of {options.nodes}"
    records = Records(options.folder)
    error = records.first_error(attempt) or records.lost_peer(attempt)
    text = f"{who}: no rows{': ' + error if error else ''}"
    return fails("nodes", text, "see the log above; the node or its process may be lost")


def _names() -> list[str]:
    """Return the names of the nodes of the job around this process, if SLURM tells them."""
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if not listed:
        return []
    try:
        return ask("scontrol", "show", "hostnames", listed).split()
    except SchedulerError:
        return []


if __name__ == "__main__":
    main(doctor_table, TableOptions)
