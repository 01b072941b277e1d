"""Timing side by side: the sides of a ratio take turns, so that both meet the same busy machine."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pix2pix.benchmark.report import spread


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one side, a value per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds per call."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(Slowest − fastest round) ÷ median."""
        return spread(self.seconds)


def take_turns(
    sides: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    seconds_per_turn: float,
) -> dict[str, Timing]:
    """Call each side for about `seconds_per_turn`, one after the other, `rounds` times.

    Each side is called twice beforehand, unmeasured: compilation and the choice of kernels happen
    then. The device is waited for before and after a turn, and not in between.
    """
    calls = {}
    for name, side in sides.items():
        side()
        calls[name] = max(1, round(seconds_per_turn / _time(side, 1, device)))
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            measured[name].append(_time(side, calls[name], device))
    return {name: Timing(tuple(seconds)) for name, seconds in measured.items()}


def _time(side: Callable[[], object], calls: int, device: torch.device) -> float:
    """Return seconds per call, over `calls` calls."""
    wait_for(device)
    started = time.perf_counter()
    for _ in range(calls):
        side()
    wait_for(device)
    return (time.perf_counter() - started) / calls


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work; a CPU has already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
