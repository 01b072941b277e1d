"""A training that is killed and started again, and what is seen of it (chaos.py)."""

import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from pix2pix.run.run_directory import RunDirectory
from pix2pix.run.state import build_state
from tests.chaos.ranks import Ranks

# Until the others of a killed process have ended: at once, but where it was killed before it had
# joined them. Then they can only wait for it, until the time-out of FLAGS.
SURVIVOR_SECONDS = 60.0
START_SECONDS = 120.0
FINISH_SECONDS = 3600.0

# Rounding grows in an adversarial training: at a usual learning rate, losses on 1 and 2 processes
# differ by a tenth after 100 steps. At this one, by 5e-5 after 300 (measured).
LEARNING_RATE = 2e-6
LOSS_TOLERANCE = 1e-3

FLAGS: dict[str, object] = {
    "image_size": 64,
    "global_batch": 6,
    "generator_width": 4,
    "discriminator_width": 4,
    "norm": "instance",
    "dropout": "false",
    "learning_rate": LEARNING_RATE,
    "decay_start": 1,
    "window_shards": 2,
    "num_workers": 1,
    "log_every": 1,
    "sample_every": 0,
    "evaluate_every": 0,
    "checkpoint_every": 4,
    "collective_timeout_minutes": 0.5,
}


@dataclass(frozen=True)
class Kill:
    """Who is killed in a start with `ranks` processes, and when.

    launched: by accelerate; then `everyone` means the launcher, which leaves its workers behind.
    moment: "start", "step" or "save"; steps: so many after the start; delay: seconds after that.
    """

    ranks: int
    launched: bool
    everyone: bool
    victim: int
    moment: str
    steps: int
    delay: float


@dataclass
class Findings:
    """What was seen over all starts; `broken` are promises that were not kept."""

    kills: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    repeated: int = 0
    checkpoints: set[Path] = field(default_factory=set)
    bad_checkpoints: set[Path] = field(default_factory=set)
    out_of_order: int = 0
    survivor_seconds: float = 0.0
    loss_difference: float = 0.0
    broken: list[str] = field(default_factory=list)

    def expect(self, kept: bool, broken: str) -> None:
        """Note a promise that was not kept."""
        if not kept:
            self.broken.append(broken)


class DisturbedTraining:
    """One training under `folder` that is killed, and started again, and its undisturbed twin."""

    def __init__(self, folder: Path, shards: Path, total_steps: int, found: Findings) -> None:
        self.folder = folder
        self.flags = FLAGS | {"shards": shards, "total_steps": total_steps}
        self.total_steps = total_steps
        self.found = found
        self.checkpoints = RunDirectory(folder / "run").checkpoints
        self.num_starts = 0
        self.last_step = 0
        self.keys: list[list[str]] = []  # of each step, in order
        self.losses: dict[int, list[float]] = {}
        self.expected_losses: dict[int, list[float]] = {}

    def run_twin(self, ranks: int) -> None:
        """Train without disturbance: what is to be expected."""
        twin = self._start("twin", ranks)
        twin.wait(FINISH_SECONDS)
        traces = [twin.trace(rank)[1:] for rank in range(ranks)]
        self.found.expect(
            {len(trace) for trace in traces} == {self.total_steps},
            f"the undisturbed training did not finish: {twin.output()}",
        )
        for records in zip(*traces, strict=False):
            self.keys.append([key for record in records for key in record["keys"]])
            self.expected_losses[records[0]["step"]] = _mean_losses(list(records))

    def kill_one(self, kill: Kill) -> None:
        """Start it, kill it, and look at what is left."""
        newest = self._newest_step()
        start = self._start("run", kill.ranks, kill.launched)
        self._await_moment(start, kill)
        pids = start.running()
        if kill.launched:
            pids = pids[:1] if kill.everyone else pids[1:]
        victims = pids if kill.everyone else pids[kill.victim % kill.ranks :][:1]
        start.kill(victims)
        killed = time.monotonic()
        ended = start.wait(SURVIVOR_SECONDS)
        if not kill.launched and kill.moment != "start":  # a launcher takes its own time
            seconds = time.monotonic() - killed
            self.found.survivor_seconds = max(self.found.survivor_seconds, seconds)
        self.found.expect(ended, f"a process outlived another by {SURVIVOR_SECONDS:.0f} s")
        if not ended:
            start.kill(start.running())
        statuses = set(start.statuses()) if not kill.launched else set()
        self.found.expect(
            statuses <= {-9, 69, 75}, f"a survivor ended with {statuses}: {start.output()}"
        )
        if victims:
            who = "all" if kill.everyone else "one"
            self.found.kills["launcher" if kill.launched and kill.everyone else who] += 1
            self.found.kills["cut a save short"] += any(self.checkpoints.glob(".step_*.partial"))
        self._read(start, newest)

    def finish(self, ranks: int) -> None:
        """The last start, which nobody kills, and what must hold in the end."""
        newest = self._newest_step()
        start = self._start("run", ranks)
        start.wait(FINISH_SECONDS)
        expect = self.found.expect
        expect(set(start.statuses()) == {0}, f"the last start failed: {start.output()}")
        self._read(start, newest)
        expect(sorted(self.losses) == list(self.expected_losses), "the losses of steps are missing")
        for step, losses in self.losses.items():
            for mine, undisturbed in zip(losses, self.expected_losses[step], strict=True):
                difference = abs(mine - undisturbed) / abs(undisturbed)
                self.found.loss_difference = max(self.found.loss_difference, difference)
        within = self.found.loss_difference < LOSS_TOLERANCE
        expect(within, "the losses differ by more than rounding")
        self._newest_step()  # looks at every checkpoint

    def is_bit_equal_to_its_twin(self) -> bool:
        """Whether both trainings ended with the same state, to the bit."""
        name = f"checkpoints/step_{self.total_steps:09d}"
        return _digest(self.folder / "run" / name) == _digest(self.folder / "twin" / name)

    def _start(self, name: str, ranks: int, launched: bool = False) -> Ranks:
        self.num_starts += 1
        self.found.starts["launched" if launched else f"{ranks}"] += 1
        flags = self.flags | {"run_dir": self.folder / name}
        arguments = [f"--{flag}={value}" for flag, value in flags.items()]
        return Ranks(self.folder / f"start_{self.num_starts:04d}", arguments, ranks, launched)

    def _await_moment(self, start: Ranks, kill: Kill) -> None:
        """Wait until it is time for `kill`, or the training has ended."""
        deadline = time.monotonic() + START_SECONDS
        cut_short = set(self.checkpoints.glob(".step_*.partial"))

        def has_come() -> bool:
            if kill.moment == "start":
                return True
            if kill.moment == "save":
                saves = set(self.checkpoints.glob(".step_*.partial")) - cut_short
                return bool(saves and start.trace(0))
            return len(start.trace(0)) > kill.steps

        while not has_come() and start.running() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(kill.delay)

    def _read(self, start: Ranks, newest: int) -> None:
        """Compare what the ranks of a start saw with what they should have seen."""
        expect, batch = self.found.expect, len(self.keys[0]) // start.count
        traces = [start.trace(rank) for rank in range(start.count)]
        for rank, (loaded, *records) in enumerate(trace for trace in traces if trace):
            name = f"{start.folder.name} of {start.count}, rank {rank}"
            expect(loaded["from"] == newest, f"{name} began at {loaded['from']}, not {newest}")
            for step, record in enumerate(records, start=newest + 1):
                keys = self.keys[step - 1][rank * batch : (rank + 1) * batch]
                if (record["step"], record["keys"]) != (step, keys):
                    self.found.out_of_order += 1
                    expect(False, f"{name}, step {step}: not the photographs of that step")
        for records in zip(*(trace[1:] for trace in traces), strict=False):
            self.losses[records[0]["step"]] = _mean_losses(list(records))
        if any(traces):  # it had loaded
            self.found.repeated += self.last_step - newest
            self.last_step = newest + max(len(trace) for trace in traces) - 1
            self.found.steps += self.last_step - newest

    def _newest_step(self) -> int:
        """The newest checkpoint that has its name; every one that has must be good."""
        newest = 0
        for path in sorted(self.checkpoints.glob("step_*")):
            self.found.checkpoints.add(path)
            try:
                _digest(path)
            except (Exception, dcp.CheckpointException) as error:
                self.found.expect(False, f"{path.name} can't be loaded: {error}")
                self.found.bad_checkpoints.add(path)
            newest = int(path.name.removeprefix("step_"))
        return newest


def _mean_losses(records: list[dict[str, Any]]) -> list[float]:
    """Of the ranks, whose micro_batches are of one size: the losses of the global batch."""
    columns = zip(*(record["losses"] for record in records), strict=True)
    return [sum(column) / len(column) for column in columns]


def _digest(checkpoint: Path) -> str:
    """SHA-256 of every tensor of a checkpoint; raises where it can't be loaded."""
    config = RunDirectory(checkpoint.parents[1]).read_config()
    values = build_state(config, torch.device("cpu")).state_dict()
    dcp.load(values, storage_reader=dcp.FileSystemReader(checkpoint), no_dist=True)
    digest = sha256()
    for tensor in _tensors(values):
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tensors(values: dict[str, Any]) -> list[torch.Tensor]:
    found = []
    for name in sorted(values):
        value = values[name]
        if isinstance(value, dict):
            found += _tensors(value)
        elif isinstance(value, torch.Tensor):
            found.append(value)
    return found
