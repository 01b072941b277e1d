"""Show the progress of runs.

    python -m slurm.status [RUN_DIR]

Jobs from SLURM's accounting or queue, steps from what the runs have written themselves.
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pix2pix.cli.command_line import main
from pix2pix.cli.help import WIDTH
from pix2pix.cli.options import option
from pix2pix.errors import UserError
from pix2pix.run.run_directory import RunDirectory
from slurm.local.cluster import use_local_cluster
from slurm.records import Records
from slurm.scheduler import ENDED, JobRow, jobs, queued_logs
from slurm.sweep import SWEEP_FILE
from slurm.sweep_table import plot_sweep, sweep_table

_RATE_LINES = 20  # of metrics.jsonl, that the rate is taken from
_TAIL_BYTES = 20_000
_NOT_OURS = ("submitit ", "srun:", "slurmstepd")  # lines of a log that say nothing of the training


@dataclass(frozen=True)
class StatusOptions:
    """Which runs."""

    run_dir: Path | None = option(
        None, help="one run, in detail", metavar="RUN_DIR", positional=True
    )
    runs: Path = option(Path("runs"), help="folder of runs to list", metavar="DIR")
    sort: str = option(
        "psnr", help="of a sweep: the figure that orders its points, the largest first"
    )
    plot: Path | None = option(
        None, help="of a sweep: picture of PSNR against colorfulness", metavar="FILE.png"
    )


class Progress(NamedTuple):
    """How far a run is. rate: steps per second, of its last lines; None before there are two."""

    step: int
    total_steps: int
    rate: float | None
    seconds_since: float | None


class Run(NamedTuple):
    """A run directory with its last job; `row` is None where SLURM knows nothing of it."""

    run: RunDirectory
    records: Records
    job: str | None
    row: JobRow | None
    progress: Progress

    @property
    def state(self) -> str:
        """Return the state in a word: SLURM's, or what the run itself has written."""
        done = self.progress.step >= self.progress.total_steps > 0
        if self.row is None or (self.row.state in ENDED and done):
            return "FINISHED" if done else self._written_state
        return self.row.state

    @property
    def restarts(self) -> int:
        """Return how often its last job started again."""
        starts = [line for line in self.records.read("started") if line["job"] == self.job]
        return max((line["restarts"] for line in starts), default=0)

    @property
    def _written_state(self) -> str:
        events = [line for line in self.records.read() if line.get("job") == self.job]
        if self.job and self.records.last_error(self.job):
            return "FAILED"
        last = events[-1] if events else {"event": "-"}
        return str(last.get("outcome") or last["event"]).replace("not requeued", "stopped").upper()


def status(options: StatusOptions) -> int:
    """Show the jobs of runs, how far they are, and the last line of their logs.

    Those of the folder --runs, and those in the queue wherever they lie. With a RUN_DIR, its
    starts, its last error and where the log is.
    """
    if options.run_dir is not None:
        if not options.run_dir.is_dir():
            raise UserError(f"there is no folder {options.run_dir}")
        if (options.run_dir / SWEEP_FILE).exists():
            print(sweep_table(options.run_dir, options.sort))
            if options.plot is not None:
                plot_sweep(options.run_dir, options.plot)
            return 0
        print(details(look([options.run_dir])[0]))
        return 0
    folders = [path for path in sorted(options.runs.glob("*")) if _is_run(path)]
    known = {path.resolve() for path in folders}
    folders += [path for path in _queued_runs() if path.resolve() not in known]
    if not folders:
        raise UserError(
            f"there are no runs in {options.runs} and none in the queue; name their folder with "
            "--runs"
        )
    print(table(look(folders)))
    return 0


def _queued_runs() -> list[Path]:
    """Run directories of my jobs in the queue: RUN_DIR/slurm/JOB_log.out is where they log."""
    folders = dict.fromkeys(Path(log).parent.parent for log in queued_logs())
    return [path for path in folders if _is_run(path)]


def look(folders: list[Path]) -> list[Run]:
    """Return what is known of these runs; SLURM is asked once."""
    found = []
    for folder in folders:
        run = RunDirectory(folder)
        records = Records(run.jobs)
        if not _is_run(folder):
            raise UserError(f"{folder} is no run directory: it has no config.json and no job")
        submitted = records.read("submitted")
        found.append((run, records, submitted[-1] if submitted else None))
    rows = jobs([last["job"] for _, _, last in found if last and _is_slurm(last)])
    return [
        Run(
            run=run,
            records=records,
            job=last["job"] if last else None,
            row=rows.get(last["job"]) if last and _is_slurm(last) else None,
            progress=progress_of(run, last),
        )
        for run, records, last in found
    ]


def progress_of(run: RunDirectory, submitted: dict[str, Any] | None) -> Progress:
    """Read it from metrics.jsonl; before there is any, from the newest checkpoint."""
    total = int((submitted or {}).get("config", {}).get("total_steps") or 0)
    if run.config_file.exists():
        with suppress(UserError):
            total = run.read_config().total_steps or total
    lines = [line for line in _last_records(run.metrics_file) if "loss/generator_l1" in line]
    if not lines:
        return Progress(run.newest_step(), total, None, None)
    first, last = lines[0], lines[-1]
    seconds = last["time"] - first["time"]
    rate = (last["step"] - first["step"]) / seconds if seconds > 0 else None
    return Progress(last["step"], total, rate, time.time() - last["time"])


def table(runs: list[Run]) -> str:
    """Return a line for each run and, below, the last line of its log; in 80 columns."""
    form = "{:<17} {:>8} {:<10} {:>3} {:>3} {:>10} {:>13} {:>8}"
    lines = [form.format("run", "job", "state", "re", "N", "elapsed", "step", "ETA")]
    for run in runs:
        row, progress = run.row, run.progress
        lines.append(
            form.format(
                _cut(run.run.root.name, 17),
                run.job or "-",
                _cut(run.state, 10),
                run.restarts,
                row.nodes if row else "-",
                _cut(row.elapsed if row else "-", 10),
                f"{progress.step}/{progress.total_steps or '?'}",
                _eta(run),
            ).rstrip()
        )
        told = last_line(run)
        if told:
            lines.append(_cut(f"    {told}", WIDTH))
    return "\n".join(lines)


def details(run: Run) -> str:
    """Return what is known of one run: progress, starts, last error, log."""
    progress = run.progress
    rate = f", {progress.rate:.3g} steps/s" if progress.rate else ""
    since = "" if progress.seconds_since is None else f", {_span(progress.seconds_since)} ago"
    lines = [
        f"run      {run.run.root}",
        f"state    {run.state}",
        f"step     {progress.step} of {progress.total_steps or '?'}{rate}{since}",
    ]
    if _eta(run) != "-":
        lines.append(f"ETA      {_eta(run)}")
    if run.job:
        where = f", {run.row.nodes} nodes, elapsed {run.row.elapsed}" if run.row else ""
        lines.append(f"job      {run.job}{where}")
        lines.append(f"log      {_log(run)}")
    lines += [f"         {_cut(told, WIDTH - 9)}" for told in filter(None, [last_line(run)])]
    error = run.job and run.records.last_error(run.job)
    if error:
        lines += ["last error", f"  {error}"]
    history = list(_history(run.records))
    if history:
        lines += ["history", *history]
    return "\n".join(lines)


def last_line(run: Run) -> str | None:
    """Return the error of a run that has failed, else the newest line of rank 0's log."""
    if run.job is None:
        return None
    if run.state not in ("RUNNING", "PENDING", "COMPLETING"):
        error = run.records.last_error(run.job)
        if error:
            return error
    try:
        with _log(run).open("rb") as file:
            file.seek(max(0, _log(run).stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    # A progress bar redraws its line after a carriage return.
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    own = [line for line in lines if line and not line.startswith(_NOT_OURS)]
    return own[-1] if own else None


def _history(records: Records) -> Iterator[str]:
    for line in records.read():
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(line["time"]))
        match line["event"]:
            case "submitted":
                told = "submitted"
            case "started":
                told = f"started at step {line['step']}, {line['nodes']} × "
                told += f"{line['ranks'] // line['nodes']} ranks"
            case "ended":
                told = f"{line['outcome']} at step {line['step']}"
            case "not requeued":
                told = f"not requeued: {line['reason']}"
            case event:
                told = event
        yield f"  {when}  job {line.get('job')}  {told}"


def _eta(run: Run) -> str:
    step, total, rate, since = run.progress
    if run.state != "RUNNING" and not (run.row is None and run.state == "STARTED"):
        return "-"
    if not rate or since is None or total <= step:
        return "-"
    return _span(max(0.0, (total - step) / rate - since))


def _span(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60:02}m"
    return f"{minutes}m {int(seconds % 60):02}s"


def _last_records(path: Path) -> list[dict[str, Any]]:
    """Return the last lines of a metrics file that are complete."""
    records: deque[dict[str, Any]] = deque(maxlen=_RATE_LINES)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 5 * _TAIL_BYTES))
            for line in file.read().splitlines():
                with suppress(ValueError):
                    records.append(json.loads(line))
    except OSError:
        return []
    return list(records)


def _log(run: Run) -> Path:
    return run.run.jobs / f"{run.job}_0_log.out"


def _is_run(folder: Path) -> bool:
    run = RunDirectory(folder)
    return run.config_file.exists() or run.jobs.exists()


def _is_slurm(submitted: dict[str, Any]) -> bool:
    return bool(submitted["cluster"]["cluster"] == "slurm")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def command() -> None:
    """Run `pix2pix-status`, and this file."""
    use_local_cluster()
    main(status, StatusOptions)


if __name__ == "__main__":
    command()
