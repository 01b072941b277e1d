"""What a training costs, said before it runs: `--dry_run`, without torch."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pix2pix.cli.help import table
from pix2pix.cli.options import option
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.model.size import discriminator_size, kept_bytes, unet_size
from pix2pix.run.run_directory import RunDirectory

UNKNOWN = "timm knows it, not this arithmetic: --estimate builds it and counts"


@dataclass(frozen=True)
class EstimateOptions:
    """What `--dry_run` may measure. No field of a training: no job and no config.json has it."""

    estimate: bool = option(
        False, help="with --dry_run: measure a few steps here, for the time", group="before it runs"
    )


@dataclass(frozen=True)
class DryRunOptions(EstimateOptions):
    """The flags of `scripts/train.py` that say what a training costs, and train nothing.

    Raises:
        UserError: `estimate` without `dry_run`.
    """

    dry_run: bool = option(False, help="say what the training costs, and write nothing")

    def __post_init__(self) -> None:
        check_estimate(self.estimate, self.dry_run)


def check_estimate(estimate: bool, dry_run: bool) -> None:
    """Raise UserError for an estimate of what would start at once."""
    if estimate and not dry_run:
        raise UserError("--estimate measures for --dry_run, which trains nothing; give both")


class Cost(NamedTuple):
    """What each rank holds, in bytes.

    checkpoint: weights, both moments of Adam, and the average. weights: these and the gradients.
    kept: of one photograph until backward, in fp32 and in bf16 or fp16; None: not counted.
    """

    checkpoint: int
    weights: int
    kept: tuple[int, int] | None


def cost_of(config: TrainConfig) -> Cost | None:
    """Return it by arithmetic (`model/size.py`); None for a generator on an encoder."""
    if config.encoder != "none":
        return None
    networks = config.color_space, config.image_size
    generator = unet_size(*networks, config.generator_width, config.norm)
    discriminator = discriminator_size(*networks, config.discriminator_width, config.norm)
    activations = generator.activations + discriminator.activations
    both = 4 * (generator.parameters + discriminator.parameters)
    checkpoint = 3 * both + (4 * generator.parameters if config.ema_decay > 0 else 0)
    kept = kept_bytes(*networks, activations, False), kept_bytes(*networks, activations, True)
    return Cost(checkpoint, checkpoint + both, kept)


def cost_table(
    config: TrainConfig, num_samples: int, world_size: int, ranks_here: int, measure: bool = False
) -> str:
    """Return what this training costs, in 80 columns.

    Args:
        config: with `total_steps` resolved.
        num_samples: of an epoch.
        world_size: number of ranks.
        ranks_here: of these, how many would share the cores of this machine.
        measure: whether to make a few steps for the time, which takes torch.

    Raises:
        UserError: memory does not suffice for these steps.
    """
    cost, time = cost_of(config), "not measured: --estimate makes a few steps"
    total = config.total_steps or 0
    done = min(RunDirectory(config.run_dir).newest_step(), total)
    if measure:
        from pix2pix.training.estimate import estimate  # torch: seconds

        batch = config.batch_per_rank(world_size)
        checkpoint, gradients, time = estimate(config, total - done, batch, ranks_here)
        cost = cost or Cost(checkpoint, checkpoint + gradients, None)
    seen = total * config.global_batch
    batch = config.batch_per_rank(world_size)
    rows = [
        ("steps", f"{total:,}" + (f", of which {done:,} are done" if done else "")),
        ("epochs", f"{seen / num_samples:.4g} of {_count(num_samples, 'photograph')}"),
        ("ranks", f"{world_size}, each sees {seen // world_size:,} photographs"),
        ("batch", f"{_count(config.global_batch, 'photograph')}, {batch} at a time on a rank"),
    ]
    if cost is None:
        rows += [("checkpoint, memory", UNKNOWN)]
    else:
        rows += [
            ("checkpoint", f"{_size(cost.checkpoint)}, {_how_often(config.checkpoint_every)}"),
            ("disk for checkpoints", _disk(config, cost.checkpoint)),
            ("memory of a rank", f"{_size(cost.weights)}: weights, gradients, moments, average"),
            ("memory of a photograph", _memory(cost.kept, batch)),
        ]
    return table([*rows, ("time", time)])


def _memory(kept: tuple[int, int] | None, batch: int) -> str:
    if kept is None:
        return "not counted for a generator on an encoder"
    fp32, half = kept
    return (
        f"{_size(half)} in bf16 or fp16, {_size(fp32)} in fp32, so {_size(batch * half)} or "
        f"{_size(batch * fp32)} for {batch}: what autograd keeps until backward, computed from the "
        "layers' shapes; kernels need more for themselves"
    )


def _disk(config: TrainConfig, size: int) -> str:
    every, total = config.checkpoint_every, config.total_steps or 0
    saves = -(-total // every) if every else 1
    kept = min(config.keep_checkpoints, saves)
    # An older one is removed only when the next is complete.
    most = min(config.keep_checkpoints + 1, saves)
    room = f"{_size(kept * size)} for {kept}, {_size(most * size)} while the next is written"
    if most == kept:
        room = f"{_size(kept * size)} for {kept}"
    return f"{room}; {_size(_free(config.run_dir))} are free there"


def _free(folder: Path) -> int:
    """Return the bytes that are free where `folder` is, or would be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _how_often(steps: int) -> str:
    return f"every {steps:,} steps and at the end" if steps else "at the end"


def _size(num_bytes: float) -> str:
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 999.5 or unit == "GB":
            break
    return f"{num_bytes:.3g} {unit}" if num_bytes < 999.5 else f"{num_bytes:,.0f} {unit}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
