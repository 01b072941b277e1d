"""Export of a run as a folder that works without it: weights, configuration, model card."""

import filecmp
import os
import shutil
from pathlib import Path
from typing import Any

import psutil

from pix2pix.errors import UserError
from pix2pix.export.card import model_card
from pix2pix.export.generator import CONFIG_FILE, ENCODER, ENCODER_SCALE, Exported, class_of
from pix2pix.export.onnx import require_onnx, write_onnx
from pix2pix.model.generators import NO_ENCODER
from pix2pix.run.checkpoint_files import read_facts
from pix2pix.run.run_directory import RunDirectory
from pix2pix.run.weights import load_generator, newest_checkpoint
from pix2pix.system.durable import aside, flush, leftovers

ONNX_FILE = "model.onnx"


def export(run_dir: Path, out: Path, license: str | None = None, onnx: bool = False) -> list[str]:
    """Write the generator of a run's newest checkpoint to the folder `out`.

    The folder is written aside and renamed. If `out` holds the same export already, it stays
    unchanged.

    Args:
        run_dir: the run.
        out: the folder to create.
        license: the hub's identifier of a license, for the model card.
        onnx: whether to write and check model.onnx, too.

    Returns:
        One line for each thing that was done.

    Raises:
        UserError: `out` has other content, or the run has no checkpoint.
    """
    if onnx:
        require_onnx()
    _refuse_strangers(out)
    checkpoint = newest_checkpoint(run_dir)
    facts = read_facts(checkpoint)
    generator = generator_of(run_dir, checkpoint)
    name = out.resolve().name
    generator.card = model_card(RunDirectory(run_dir), facts, name, license, onnx)
    said = [f"step {facts['step']:,} of {run_dir}: {out}"]
    folder = aside(out.resolve())
    try:
        said += _clean_up(out.resolve())
        generator.save_pretrained(folder)
        if onnx:
            difference = write_onnx(generator, folder / ONNX_FILE)
            said.append(f"{ONNX_FILE}: at most {difference:.1e} from torch, on a scale of 2")
        if not out.exists() or not any(out.iterdir()):
            _publish(folder, out)
            return said
        if not _same(folder, out):
            raise UserError(
                f"{out} holds another export; choose another --out, or remove that folder"
            )
        return [f"{out} holds this export already: nothing to do"]
    except OSError as error:
        raise UserError(f"can't write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def generator_of(run_dir: Path, checkpoint: Path) -> Exported:
    """Return the generator of a checkpoint on the CPU, with averaged weights if it has them."""
    network, config, _ = load_generator(run_dir, checkpoint)
    values: dict[str, Any] = {
        "color_space": config.color_space,
        "image_size": config.image_size,
        "width": config.generator_width,
        # The same layer except in a training on several GPUs, and it works on a CPU.
        "norm": "batch" if config.norm == "sync_batch" else config.norm,
        "dropout": config.dropout,
    }
    if config.encoder != NO_ENCODER:
        values |= {ENCODER: config.encoder, ENCODER_SCALE: config.encoder_scale}
    generator = class_of(values)(**values)
    generator.load_state_dict(network.state_dict())
    return generator.eval()


def _refuse_strangers(out: Path) -> None:
    """Refuse a file, and a folder whose content is not an export, before the work starts."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out is the folder to create")
    if out.is_dir() and any(out.iterdir()) and not (out / CONFIG_FILE).is_file():
        raise UserError(f"{out} holds other files; choose another --out")


def _clean_up(out: Path) -> list[str]:
    """Remove the leftovers of killed exports to `out`; return one line for each."""
    lines = []
    for folder, name in leftovers(out.parent):
        process = int(folder.name.split(".")[-2])
        if name == out.name and not psutil.pid_exists(process):
            shutil.rmtree(folder)
            lines.append(f"removed {folder.name}: its export was cut short")
    return lines


def _publish(folder: Path, out: Path) -> None:
    for file in (*folder.iterdir(), folder):
        flush(file)
    os.replace(folder, out)
    flush(out.parent)


def _same(folder: Path, out: Path) -> bool:
    names = sorted(file.name for file in folder.iterdir())
    if names != sorted(file.name for file in out.iterdir()):
        return False
    return filecmp.cmpfiles(folder, out, names, shallow=False)[0] == names
