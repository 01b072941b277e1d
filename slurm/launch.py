"""Hand jobs to SLURM, or run one as processes of this machine."""

import shlex
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2pix.errors import UserError
from slurm.options import ClusterOptions
from slurm.scheduler import outside_of_any_job

Job = Callable[[], int]
_NO_LIMIT_MINUTES = 10 * 365 * 24 * 60


@dataclass(frozen=True)
class Launch:
    """Everything about a job but what it does.

    folder: for logs and pickles. snapshot: the code it runs. dependency: as sbatch takes it.
    last_words: shell lines after the ranks have ended, with srun's status in $status.
    """

    options: ClusterOptions
    name: str
    folder: Path
    snapshot: Path
    last_words: Sequence[str] = ()
    dependency: str | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the arguments of submitit's SlurmExecutor.update_parameters."""
        given = self.options.script_parameters(self.name)
        # Without a trap, SIGTERM ends this shell, while the ranks save and something is to be said.
        setup = ["trap : TERM", *(self.options.setup or "").splitlines()]
        setup += [f"export {name}={value}" for name, value in self.environment().items()]
        given["setup"] = setup
        given["teardown"] = ["status=$?", *self.last_words, "exit $status"]
        if self.dependency:
            given["additional_parameters"].pop("dependency", None)
            given["dependency"] = self.dependency
        return given

    def environment(self) -> dict[str, str]:
        """Return variables of the ranks, ready for a shell."""
        variables = {
            "PYTHONPATH": shlex.quote(str(self.snapshot)) + "${PYTHONPATH:+:$PYTHONPATH}",
            # `python -m` puts the working directory first, which may be the checkout.
            "PYTHONSAFEPATH": "1",
        }
        return variables | self.devices()

    def devices(self) -> dict[str, str]:
        """Return variables by which the ranks take the GPUs that were asked for, or none.

        A node may show some to a job that did not ask, and the user's shell may say something else.
        """
        if self.options.gpus.number:
            return {"ACCELERATE_USE_CPU": "false"}
        return {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}

    def script(self, num_jobs: int = 1) -> str:
        """Return the script that sbatch is given."""
        from submitit.slurm.slurm import _make_sbatch_string

        command = f"{self.options.python_command} -u -m submitit.core._submit"
        return _make_sbatch_string(
            command=f"{command} {shlex.quote(str(self.folder))}",
            folder=self.folder,
            map_count=num_jobs if num_jobs > 1 else None,
            **self.parameters(),
        )


def submit(launch: Launch, jobs: Sequence[Job]) -> list[str]:
    """Queue the jobs, several as an array; returns their ids. Raises UserError."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(folder=launch.folder, python=launch.options.python_command)
    executor.update_parameters(**launch.parameters())
    try:
        with outside_of_any_job():
            if len(jobs) > 1:
                return [job.job_id for job in executor.submit_array(jobs)]
            return [executor.submit(jobs[0]).job_id]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"SLURM did not take the job: {' '.join(str(error).split())}") from None


def run_locally(launch: Launch, job: Job, started: Callable[[str], None]) -> tuple[str, int]:
    """Run the job's ranks as processes of this machine, until they end; (its id, exit status).

    started: told the id as soon as there is one. Ctrl-C reaches the ranks, which save and stop.
    """
    from submitit import LocalExecutor

    options = launch.options
    executor = LocalExecutor(folder=launch.folder)
    executor.update_parameters(
        tasks_per_node=options.ranks_per_node,
        gpus_per_node=options.gpus.number,
        timeout_min=options.time_minutes or _NO_LIMIT_MINUTES,
        signal_delay_s=options.save_seconds,
        stderr_to_stdout=True,
    )
    # submitit's controller would kill the ranks a second after Ctrl-C: only they shall hear it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    path = {"PYTHONPATH": str(launch.snapshot), "PYTHONSAFEPATH": "1"}
    with outside_of_any_job(path | launch.devices()):
        running = executor.submit(job)
    signal.signal(signal.SIGINT, before)
    started(running.job_id)
    while not running.done():
        try:
            time.sleep(0.2)
        except KeyboardInterrupt:
            print("stopping: it saves first", flush=True)
    ranks = [running.task(rank) for rank in range(options.ranks_per_node)]
    if not all(rank.paths.result_pickle.exists() for rank in ranks):
        return running.job_id, 1  # submitit would wait for what a failed rank never leaves
    return running.job_id, max(running.results())
