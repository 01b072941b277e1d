"""Kill a real training again and again, start it again, and check that nothing was lost.

Two parts. Elastic: it goes on with 1, 2 or 3 processes; the photographs of each step and the losses
must be those of a training that nobody disturbed. Constant: 2 processes each time; the final
weights must be those of the undisturbed training, bit by bit.
"""

import random
import shutil
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from data_prep.make_shards import MakeShardsOptions, make_shards
from data_prep.sample_photos import SamplePhotosOptions, write_sample_photos
from pix2pix.benchmark.options import Output
from pix2pix.benchmark.report import Figures, report
from pix2pix.cli.help import wrap
from tests.chaos.options import ChaosOptions
from tests.chaos.training import DisturbedTraining, Findings, Kill

STEPS_PER_KILL = 10  # more than a start makes before it is killed, on average: it must not finish
MAX_STEPS = 10  # that a start makes before it is killed
LAUNCH_EVERY = 8  # starts; the others spare the launcher, which takes ten times as long


def plan_kills(count: int, ranks: tuple[int, ...], dice: random.Random) -> list[Kill]:
    """Of all kinds, in random order: 4 of 10 in a save, 1 in a start; every 8th when launched."""
    kills = []
    for number in range(count):
        launched = number % LAUNCH_EVERY == LAUNCH_EVERY - 1
        moments = ["save"] * 4 + ["step"] * 5 + ["start"] * (not launched)
        moment = dice.choice(moments)
        kills.append(
            Kill(
                ranks=dice.choice(ranks),
                launched=launched,
                everyone=dice.random() < 0.5,
                victim=dice.randrange(max(ranks)),
                moment=moment,
                steps=dice.randrange(MAX_STEPS + 1),
                delay=dice.uniform(0, {"save": 0.02, "step": 0.1, "start": 1.5}[moment]),
            )
        )
    return kills


def chaos(options: ChaosOptions) -> int:
    """Kills a training with SIGKILL again and again, restarts it, and checks every promise.

    Exit status 0 only if all were kept. Runs on the CPU, under Linux.
    """
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    shards = options.shards or _sample_shards(folder)
    dice, found = random.Random(options.seed), Findings()
    constant_kills = max(1, options.kills // 4)
    elastic = plan_kills(options.kills - constant_kills, (1, 2, 3), dice)
    constant = plan_kills(constant_kills, (2,), dice)
    with tqdm(total=options.kills, unit="kill", ncols=80) as bar:
        _disturb(folder / "elastic", shards, elastic, 1, found, bar)
        same = _disturb(folder / "constant", shards, constant, 2, found, bar)
    found.expect(same, "killed on 2 processes, the final weights are others than undisturbed")
    delivered = sum(found.kills[who] for who in ("one", "all", "launcher"))
    found.expect(delivered == options.kills, f"only {delivered} kills met a running process")
    seconds = time.monotonic() - began
    report("chaos", _figures(found, options.kills, same, seconds), Output(json=options.json))
    for broken in found.broken:
        print(wrap(f"broken promise: {broken}"))
    if found.broken:
        print(f"what is left of it: {folder}")
        return 1
    shutil.rmtree(folder)
    print("every promise was kept")
    return 0


def _disturb(
    folder: Path, shards: Path, kills: list[Kill], twin_ranks: int, found: Findings, bar: tqdm
) -> bool:
    """Kill a training by plan and let it finish; whether it ended as its twin, to the bit."""
    training = DisturbedTraining(folder, shards, STEPS_PER_KILL * len(kills) + 20, found)
    training.run_twin(twin_ranks)
    for kill in kills:
        training.kill_one(kill)
        bar.update()
    training.finish(twin_ranks)
    return training.is_bit_equal_to_its_twin()


def _figures(found: Findings, kills: int, same_weights: bool, seconds: float) -> Figures:
    good = len(found.checkpoints) - len(found.bad_checkpoints)
    return {
        "kills": kills,
        "kills_of_one_process": found.kills["one"],
        "kills_of_all_processes": found.kills["all"],
        "kills_of_the_launcher": found.kills["launcher"],
        "kills_that_cut_a_save_short": found.kills["cut a save short"],
        **{f"starts_on_{n}_processes": found.starts[f"{n}"] for n in (1, 2, 3)},
        "starts_by_the_launcher": found.starts["launched"],
        "checkpoints": len(found.checkpoints),
        "good_checkpoints": good,
        "steps": found.steps,
        "repeated_steps": found.repeated,
        "repeated_steps_per_kill": found.repeated / kills,
        "order_is_the_undisturbed_one": "yes" if not found.out_of_order else "no",
        "largest_loss_difference": found.loss_difference,
        "final_weights_are_bit_equal": "yes" if same_weights else "no",
        "last_survivor_seconds": found.survivor_seconds,
        "broken_promises": len(found.broken),
        "total_seconds": seconds,
    }


def _sample_shards(folder: Path) -> Path:
    """Shards of the photographs that scikit-image and scikit-learn carry."""
    write_sample_photos(SamplePhotosOptions(out=folder / "photos"))
    make_shards(
        MakeShardsOptions(
            photos=folder / "photos" / "train",
            out=folder / "shards",
            split="train",
            short_side=72,
            samples_per_shard=8,
        )
    )
    return folder / "shards"
