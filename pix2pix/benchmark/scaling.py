"""How a step grows with processes: the same batch for each, more of them, and bytes on the wire.

Every process has a share of the cores that is its own and the same for any number of them; on GPUs
each has one. All wait while one number of them has its turn.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from tqdm import tqdm

from pix2pix.benchmark.options import ScalingOptions
from pix2pix.benchmark.processes import bytes_sent, environments
from pix2pix.benchmark.report import Figures
from pix2pix.benchmark.rounds import Timing, wait_for
from pix2pix.benchmark.training import configure, first_batch, prepare_shards, quietly
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.run.distributed import Distributed
from pix2pix.system.machine import num_cores
from pix2pix.training.precision import default_precision
from pix2pix.training.trainer import Trainer

TOGETHER, APART = "together", "apart"  # with gradients averaged over the processes, and without


class Turn(NamedTuple):
    """One turn of one process: seconds and bytes sent, per step."""

    seconds: float
    bytes: float


@dataclass(frozen=True)
class Side:
    """What has turns: `processes` of them, TOGETHER or APART."""

    processes: int
    kind: str


def measure(options: ScalingOptions) -> tuple[Figures, str | None]:
    """Return the figures, and the GPUs that they were measured on.

    Raises UserError where there are fewer cores or GPUs than processes are asked for.
    """
    on_gpu = torch.cuda.is_available()
    most = torch.cuda.device_count() if on_gpu else num_cores()
    counts = sorted(options.processes or {n for n in (1, 2, 4) if n <= most})
    if counts[-1] > most:
        what = "GPUs" if on_gpu else "cores"
        raise UserError(f"--processes {counts[-1]}: this machine has {most} {what}, one for each")
    cores = num_cores() // counts[-1]
    batch_size = options.batch_size or (16 if on_gpu else 4)
    width = options.width or (64 if on_gpu else 32)
    with TemporaryDirectory(prefix="scaling-") as name, contextlib.ExitStack() as stack:
        shards = prepare_shards(None, Path(name), options.image_size)
        worlds = {}
        for count in counts:
            config = configure(
                shards=(str(shards),),
                run_dir=Path(name, f"run{count}"),
                global_batch=count * batch_size,
                image_size=options.image_size,
                generator_width=width,
                discriminator_width=width,
                precision=options.precision,
                compile=options.compile,
                total_steps=10**9,
            )
            worlds[count] = stack.enter_context(World.started(config, count, cores))
        turns = take_turns(worlds, options.rounds, options.seconds_per_turn)
        facts = worlds[counts[0]].facts
    device = torch.device("cuda" if on_gpu else "cpu")
    figures: Figures = {
        **rates(turns, batch_size),
        **traffic(turns, facts.gradient_bytes),
        "batch_size_per_process": batch_size,
        "image_size": options.image_size,
        "width": width,
        "precision": options.precision or default_precision(device),
        "compiled": str(options.compile).lower(),
        "cores_per_process": cores,
    }
    return figures, facts.device if on_gpu else None


class Facts(NamedTuple):
    """What a process says when it is ready."""

    gradient_bytes: int
    device: str


@dataclass(frozen=True)
class World:
    """Processes of one group, which wait for the word to step."""

    pipes: Sequence[Connection]
    facts: Facts

    @classmethod
    @contextlib.contextmanager
    def started(cls, config: TrainConfig, count: int, cores: int) -> "Iterator[World]":
        """Start `count` processes with `cores` each; they end with the context."""
        context = multiprocessing.get_context("spawn")
        pipes: list[Connection] = []
        processes: list[SpawnProcess] = []
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for rank, environment in enumerate(environments(count)):
            mine, theirs = context.Pipe()
            own = usable[rank * cores : (rank + 1) * cores]
            processes.append(
                context.Process(target=_serve, args=(theirs, environment, own, config))
            )
            processes[-1].start()
            theirs.close()
            pipes.append(mine)
        try:
            facts = [pipe.recv() for pipe in pipes]  # EOFError where one died: it has said why
            yield cls(pipes, facts[0])
        finally:
            for pipe in pipes:
                pipe.close()
            for process in processes:
                process.join()

    def step(self, kind: str, steps: int) -> Turn:
        """Make `steps` steps in every process; return the slowest's seconds, mean bytes sent."""
        for pipe in self.pipes:
            pipe.send((kind, steps))
        turns = [pipe.recv() for pipe in self.pipes]
        return Turn(max(t.seconds for t in turns), sum(t.bytes for t in turns) / len(turns))


def _serve(
    pipe: Connection, environment: dict[str, str], cores: list[int], config: TrainConfig
) -> None:
    """Run one process: its trainer's step on a batch in memory, as often as it is told to."""
    os.environ.update(environment)
    if cores:
        os.sched_setaffinity(0, cores)
    with Distributed(timeout_minutes=5, num_threads=len(cores) or None) as distributed:
        with quietly():
            trainer = Trainer(config, distributed)
        batch, step, state = first_batch(trainer), trainer.step, trainer.state
        parameters = [*state.generator.parameters(), *state.discriminator.parameters()]
        num_bytes = sum(p.numel() * p.element_size() for p in parameters)
        pipe.send(Facts(num_bytes, distributed.device_name))
        while (told := _told(pipe)) is not None:
            kind, steps = told
            with contextlib.ExitStack() as stack:
                if kind == APART:
                    for network in (step.generator, step.discriminator):
                        stack.enter_context(network.no_sync())  # type: ignore[operator]
                distributed.barrier()
                wait_for(distributed.device)
                sent, started = bytes_sent(), time.perf_counter()
                for _ in range(steps):
                    step([batch])
                wait_for(distributed.device)
                seconds = time.perf_counter() - started
                distributed.barrier()
            pipe.send(Turn(seconds / steps, (bytes_sent() - sent) / steps))
        trainer.writer.release()


def _told(pipe: Connection) -> tuple[str, int] | None:
    try:
        told: tuple[str, int] = pipe.recv()
    except EOFError:
        return None
    return told


def take_turns(
    worlds: dict[int, World], rounds: int, seconds_per_turn: float
) -> dict[Side, list[Turn]]:
    """Give each side a turn in every round, after two steps that do not count."""
    sides = [Side(n, TOGETHER) for n in worlds] + [Side(n, APART) for n in worlds if n > 1]
    steps = {}
    for side in sides:
        worlds[side.processes].step(side.kind, 1)
        seconds = worlds[side.processes].step(side.kind, 1).seconds
        steps[side] = max(1, round(seconds_per_turn / seconds))
    turns: dict[Side, list[Turn]] = {side: [] for side in sides}
    for _ in tqdm(range(rounds), unit=" rounds", ncols=80, disable=None, leave=False):
        for side in sides:
            turns[side].append(worlds[side.processes].step(side.kind, steps[side]))
    return turns


def rates(turns: dict[Side, list[Turn]], batch_size: int) -> Figures:
    """Return photographs per second, and their share of that of the fewest processes, scaled up.

    `efficiency_N` is that share; `exchange_efficiency_N` compares with N processes that step apart,
    at the same time: it leaves out what they cost each other in memory bandwidth and clock rate.
    """
    figures: dict[str, float | int | str] = {}
    timings = {side: Timing(tuple(t.seconds for t in turns[side])) for side in turns}
    rate = {side: side.processes * batch_size / timings[side].median for side in turns}
    counts = sorted({side.processes for side in turns})
    one = rate[Side(counts[0], TOGETHER)] / counts[0]
    for n in counts:
        together = Side(n, TOGETHER)
        figures[f"samples_per_second_{n}"] = rate[together]
        figures[f"spread_{n}"] = timings[together].spread
        if n > counts[0]:
            figures[f"efficiency_{n}"] = rate[together] / (n * one)
        if n > 1:
            apart = Side(n, APART)
            figures[f"apart_samples_per_second_{n}"] = rate[apart]
            figures[f"apart_spread_{n}"] = timings[apart].spread
            figures[f"exchange_efficiency_{n}"] = rate[together] / rate[apart]
    return figures


def traffic(turns: dict[Side, list[Turn]], gradient_bytes: int) -> Figures:
    """Return bytes that a process sends in a step, and those of a ring all-reduce of gradients.

    Of a ring of N, each sends 2 (N - 1) / N times its gradients (Patarasuk and Yuan 2009). Measured
    are its TCP connections: with gloo everything, with NCCL on one machine nothing goes that way.
    """
    figures: dict[str, float | int | str] = {"gradient_bytes": gradient_bytes}
    for n in sorted({side.processes for side in turns if side.processes > 1}):
        figures[f"ring_bytes_{n}"] = round(2 * (n - 1) / n * gradient_bytes)
        sent = [turn.bytes for turn in turns[Side(n, TOGETHER)]]
        if max(sent) > 0:
            figures[f"sent_bytes_{n}"] = round(median(sent))
    return figures
