"""A sweep: one training for each point of a grid of flags, side by side in one folder.

python -m slurm.submit sweep --grid seed=0,1 l1_weight=50,100 --shards … --run_dir runs/sweep
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2pix.cli.options import Flag, flags_of, option, suggestion
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.system.durable import publish_json

SWEEP_FILE = "sweep.json"
_FIXED = ("run_dir", "shards")  # the sweep's own, the same for all of its points


@dataclass(frozen=True)
class GridOptions:
    """Which points a sweep has."""

    grid: tuple[str, ...] = option(
        help="values of a flag, as l1_weight=50,100,300; every combination is a training",
        metavar="FLAG=VALUE,…",
        many="words",
        group="sweep",
    )


@dataclass(frozen=True)
class Point:
    """One training of a sweep.

    values: the flags that it has of its own, as text. config: all of its flags; its run directory
    lies in that of the sweep.
    """

    values: Mapping[str, str]
    config: TrainConfig

    @property
    def name(self) -> str:
        """Return the name of its run directory, such as `l1_weight=50,seed=0`."""
        return point_name(self.values)


def point_name(values: Mapping[str, str]) -> str:
    """Return the name of a point: its own flags, in the order of the grid."""
    return ",".join(f"{name}={value}" for name, value in values.items()).replace("/", "_")


def points_of(grid: Sequence[str], config: TrainConfig) -> list[Point]:
    """Return every combination of the grid's values, each a configuration.

    Args:
        grid: `name=value,value` each.
        config: the flags that all points share; its run_dir is the sweep's folder.

    Raises:
        UserError: a name or a value is none, two points are alike, or a point can't be.
    """
    axes = dict(_axis(text) for text in _without_repeats(grid))
    flags = flags_of(TrainConfig)
    points = []
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        typed = {name: flags[name].read(text, f"--grid {name}") for name, text in values.items()}
        run_dir = config.run_dir / point_name(values)
        try:
            points.append(Point(values, dataclasses.replace(config, **typed, run_dir=run_dir)))
        except UserError as error:
            raise UserError(f"the point {point_name(values)}: {error}") from error
    _check_apart(points)
    return points


def write_sweep(folder: Path, grid: Sequence[str], points: Sequence[Point]) -> None:
    """Publish in the sweep's folder which points it has; `slurm.status` reads it.

    Points of earlier submissions stay in the list. Raises UserError where the folder can't be
    written.
    """
    named = {point.name: dict(point.values) for point in points}
    content = {"grid": list(grid), "points": read_sweep(folder) | named}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        publish_json(folder / SWEEP_FILE, content)
    except OSError as error:
        raise UserError(f"can't write to run_dir {folder}: {error.strerror}") from error


def read_sweep(folder: Path) -> dict[str, dict[str, str]]:
    """Return the points of the sweep in `folder`, name → values; none where it is no sweep."""
    try:
        points = json.loads((folder / SWEEP_FILE).read_text())["points"]
        return {str(name): dict(values) for name, values in points.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / SWEEP_FILE} is damaged; remove it and submit again") from error


def _without_repeats(grid: Sequence[str]) -> Sequence[str]:
    names = [text.partition("=")[0] for text in grid]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--grid names {name} twice; give all of its values together")
    return grid


def _axis(text: str) -> tuple[str, list[str]]:
    """Return (name, values) of `name=value,value`."""
    name, equals, values = text.partition("=")
    name = name.replace("-", "_")
    flags = flags_of(TrainConfig)
    if not equals or not values:
        raise UserError(f"--grid takes FLAG=VALUE,VALUE, as l1_weight=50,100, not '{text}'")
    if name in _FIXED or name not in flags:
        hint = "" if name in _FIXED else suggestion(name, flags)
        raise UserError(f"--grid {name} is no flag that a point can have of its own{hint}")
    return name, [value.strip() for value in _split(flags[name], values)]


def _split(flag: Flag, values: str) -> list[str]:
    return [values] if flag.many else values.split(",")


def _check_apart(points: Sequence[Point]) -> None:
    """Raise UserError where two points are one training: `seed=1,01`."""
    seen: dict[str, Point] = {}
    for point in points:
        fields: dict[str, Any] = point.config.to_json()
        fields.pop("run_dir")
        if any(point.name == other.name for other in seen.values()):
            raise UserError(
                f"two points would share the folder {point.name}: '/' becomes '_' there"
            )
        key = json.dumps(fields, sort_keys=True)
        if key in seen:
            raise UserError(f"the points {seen[key].name} and {point.name} are the same training")
        seen[key] = point
