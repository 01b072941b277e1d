"""What `make gpu` does: the sections, how long each may take, and the targets of their figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Row = Mapping[str, float | int | str]

NINE_MINUTES = 540  # seconds, of the first look and all sections but the slow one
LOOK_SECONDS = 45  # for torch to be imported and the driver to answer


@dataclass(frozen=True)
class Trial:
    """What the sections measure, and on what; travels to each of them as JSON.

    The defaults are those of a GPU; tests of this program give a CPU and tiny sizes.

    Attributes:
        device: "cuda" or "cpu"; a section that finds itself on another one fails.
        photos: folder, zip or tar of photographs; None for synthetic ones.
        tests: files and folders that have all tests marked gpu; others may need more packages.
        precision: None for the device's default.
        image_size: pixels. width: channels of both networks.
        batches, compiled_batches, classic_batches, decoded_batches: photographs of a step, of a
            compiled one, of the classic one, and decoded at once.
        backend: of torch.compile.
        num_samples: of the classic run: 4,000 photographs 25 times.
        num_batches: of a turn of the loader.
        rounds, seconds_per_turn: of what takes turns.
    """

    device: str = "cuda"
    photos: str | None = None
    tests: tuple[str, ...] = ("tests/gpu", "tests/training/test_step.py")
    precision: str | None = None
    image_size: int = 256
    width: int = 64
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    compiled_batches: tuple[int, ...] = (16, 64)
    classic_batches: tuple[int, ...] = (1, 4, 16, 64)
    decoded_batches: tuple[int, ...] = (16, 64)
    trained_batch: int = 16
    backend: str = "inductor"
    num_samples: int = 100_000
    num_batches: int = 100
    rounds: int = 3
    seconds_per_turn: float = 0.3


class Target(NamedTuple):
    """What a figure should reach; whether it does is said, and a miss is no failure.

    column: of the rows; the best of them counts. at_least: or at most.
    """

    column: str
    value: float
    at_least: bool = True

    def judge(self, rows: list[Row]) -> str:
        """Return the target, the best figure and whether it is enough, for people."""
        wanted = f"{'≥' if self.at_least else '≤'} {self.value:,.10g} {self.column}"
        found = [row[self.column] for row in rows if isinstance(row.get(self.column), float | int)]
        numbers = [float(value) for value in found]
        if not numbers:
            return f"{wanted}: not measured"
        best = max(numbers) if self.at_least else min(numbers)
        enough = best >= self.value if self.at_least else best <= self.value
        return f"{wanted}: {best:,.4g}, {'reached' if enough else 'missed'}"


class Section(NamedTuple):
    """A part of the report, made by `function(trial)`, which yields its rows as it measures them.

    seconds: after which it is ended. slow: only by its name, outside the nine minutes.
    """

    name: str
    title: str
    module: str
    function: str
    seconds: float
    targets: tuple[Target, ...] = ()
    slow: bool = False


_SUITE, _STEPS, _RUNS = "pix2pix.gpu.suite", "pix2pix.gpu.steps", "pix2pix.gpu.runs"
LOOK = Section("look", "The device", "pix2pix.gpu.look", "look", LOOK_SECONDS)
SECTIONS = (
    Section("tests", "Tests marked gpu", _SUITE, "tests", 125),
    Section(
        "step",
        "Eager steps by batch, beside matrix multiplication",
        _STEPS,
        "eager",
        60,
        (Target("photographs/s", 3500), Target("% of matmul", 38)),
    ),
    Section("compile", "Compiled steps, beside eager ones", _STEPS, "compiled", 130),
    Section("classic_step", "Our step beside the classic one", _STEPS, "classic", 25),
    Section("loader", "JPEGs decoded by the CPU and by the device", _RUNS, "loader", 25),
    Section("checkpoint", "What a save stalls", _RUNS, "checkpoint", 25),
    Section("end_to_end", "Whole trainings, beside their bare step", _RUNS, "end_to_end", 30),
    Section(
        "classic",
        "The classic run: 4,000 photographs 25 times",
        _RUNS,
        "classic_run",
        70,
        (Target("total_seconds", 60, at_least=False),),
    ),
    Section(
        "autotune",
        "Compiled with max-autotune",
        _STEPS,
        "autotune",
        1800,
        slow=True,
    ),
)
