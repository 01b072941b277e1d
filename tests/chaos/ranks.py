"""The processes that chaos.py kills: scripts/train.py, which also tells what each step saw.

Each rank writes $PIX2PIX_CHAOS_TRACE/rankN.jsonl: a line when its state is loaded, one per step.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pix2pix.benchmark.processes import environments
from pix2pix.cli.command_line import main
from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch
from pix2pix.run.distributed import Distributed
from pix2pix.training.step import StepMetrics
from pix2pix.training.trainer import Outcome, Trainer
from slurm.local.processes import is_alive

TRACE = "PIX2PIX_CHAOS_TRACE"
LOSSES = ("discriminator_loss", "generator_adversarial", "generator_l1")

# A server that has imported torch forks the ranks: a start takes a second instead of ten.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.chaos.ranks"])


def train_traced(config: TrainConfig) -> int:
    """Train as scripts/train.py does; the same statuses."""
    file = Path(os.environ[TRACE]) / f"rank{os.environ.get('RANK', 0)}.jsonl"
    timeout = config.collective_timeout_minutes
    with file.open("w", buffering=1) as trace, Distributed(timeout, num_threads=1) as distributed:
        trainer = Trainer(config, distributed)
        step = trainer.step

        def traced(micro_batches: Sequence[Batch]) -> StepMetrics:
            metrics = step(micro_batches)
            keys = [key for batch in micro_batches for key in batch.keys]
            losses = [getattr(metrics, name).item() for name in LOSSES]
            record = {"step": trainer.state.step, "keys": keys, "losses": losses}
            trace.write(json.dumps(record) + "\n")
            return metrics

        trainer.step = traced  # type: ignore[assignment]
        loaded = {"pid": os.getpid(), "ranks": distributed.world_size, "from": trainer.state.step}
        trace.write(json.dumps(loaded) + "\n")
        return 75 if trainer.fit() is Outcome.STOPPED else 0


class Ranks:
    """One start of a training: `count` processes, which write their output into `folder`.

    launched: by `accelerate launch`; else directly, with the variables that SLURM would give.
    """

    def __init__(self, folder: Path, flags: Sequence[str], count: int, launched: bool) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.count = count
        self.launched = launched
        if launched:
            self._children: list[Any] = [_launch(folder, flags, count)]
        else:
            places = enumerate(environments(count))
            self._children = [_fork(folder, flags, *place) for place in places]

    def trace(self, rank: int) -> list[dict[str, Any]]:
        """The whole lines that the rank has written: the first tells what it loaded."""
        records = []
        with suppress(FileNotFoundError, ValueError):  # the last line may be cut short
            for line in (self.folder / f"rank{rank}.jsonl").read_text().splitlines():
                records.append(json.loads(line))
        return records

    def running(self) -> list[int]:
        """Process ids of the ranks that still run, and of their launcher."""
        pids = [child.pid for child in self._children]
        if self.launched:
            traces = [self.trace(rank)[:1] for rank in range(self.count)]
            pids += [record["pid"] for records in traces for record in records]
        return [pid for pid in pids if is_alive(pid)]

    def wait(self, seconds: float) -> bool:
        """Whether all have ended within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def kill(self, pids: Sequence[int]) -> None:
        """SIGKILL."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def status(self, number: int) -> int:
        """Wait for a rank, or the launcher (0): exit status, or minus the signal that ended it."""
        child = self._children[number]
        if isinstance(child, subprocess.Popen):
            return child.wait()
        child.join()
        return int(child.exitcode)

    def statuses(self) -> list[int]:
        """`status` of whatever was started."""
        return [self.status(number) for number in range(len(self._children))]

    def output(self) -> str:
        """What all of them have printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def _launch(folder: Path, flags: Sequence[str], count: int) -> "subprocess.Popen[bytes]":
    accelerate = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    options = ["--main_process_port", "0", "--num_processes", str(count)]
    options += ["--multi_gpu"] * (count > 1)
    with (folder / "launcher.log").open("w") as log:
        return subprocess.Popen(
            [*accelerate, *options, "--module", "tests.chaos.ranks", *flags],
            env=os.environ | _environment(folder),
            stdout=log,
            stderr=log,
        )


def _fork(folder: Path, flags: Sequence[str], rank: int, variables: dict[str, str]) -> BaseProcess:
    variables = _environment(folder) | variables
    log = folder / f"rank{rank}.log"
    process = _context.Process(target=_rank_main, args=(variables, log, list(flags)))
    process.start()
    return process


def _environment(folder: Path) -> dict[str, str]:
    cpu = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {TRACE: str(folder), **cpu}


def _rank_main(variables: dict[str, str], log: Path, flags: list[str]) -> None:
    os.environ.update(variables)
    with log.open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    main(train_traced, TrainConfig, flags)


if __name__ == "__main__":
    main(train_traced, TrainConfig)
