"""Check whether this machine is ready to train, and say what to mend: python scripts/doctor.py."""

from dataclasses import asdict

from pix2pix.cli.command_line import main
from pix2pix.doctor.options import DoctorOptions


def doctor(options: DoctorOptions) -> int:
    """Check Python, torch, GPUs, a training step, loader processes, file systems and SLURM.

    Each row is ok, note or FAILS, with what to do. Exits with status 1 if one fails.
    """
    from pix2pix.doctor.examine import examine, row_text, verdict
    from pix2pix.system.durable import publish_json

    rows = []
    for row in examine(options.patient):
        print(row_text(row), flush=True)
        rows.append(row)
    print(verdict(rows))
    if options.json:
        publish_json(options.json, {"rows": [asdict(row) for row in rows]})
    return 1 if any(row.status == "fails" for row in rows) else 0


def command() -> None:
    """`pix2pix-doctor`, and this file."""
    main(doctor, DoctorOptions)


if __name__ == "__main__":
    command()
