"""The model card of an export, filled from its run: what it is, how to use it, what made it."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from pix2pix.cli.options import flags_of
from pix2pix.config import IDENTITY_FIELDS, TrainConfig
from pix2pix.data.data_set import digest_of, epoch_samples, open_training
from pix2pix.errors import UserError
from pix2pix.export.generator import LIBRARY, PIPELINE, TAGS
from pix2pix.model.generators import NO_ENCODER
from pix2pix.run.run_directory import RunDirectory

EVALUATION = "evaluation/"  # how these names begin in metrics.jsonl
RECIPE_FIELDS = (
    *IDENTITY_FIELDS,
    "total_steps",
    "decay_start",
    "precision",
    "grad_accumulation_steps",
)

TEMPLATE = Path(__file__).with_name("card.md")


def model_card(
    run: RunDirectory, facts: Mapping[str, Any], name: str, license: str | None, onnx: bool
) -> str:
    """Return the card, as Markdown under the hub's metadata, without a path of this machine.

    Args:
        run: the run.
        facts: state.json of the exported checkpoint.
        name: of the folder that the card goes to.
        license: as the hub names it, such as `mit`; None: the card says that none was given.
        onnx: whether the folder holds model.onnx.
    """
    config = run.read_config()
    evaluated_step, evaluation = _evaluation(run, facts["step"])
    card = ModelCard.from_template(
        ModelCardData(license=license, library_name=LIBRARY, pipeline_tag=PIPELINE, tags=TAGS),
        template_path=str(TEMPLATE),
        color_space=config.color_space,
        encoder="" if config.encoder == NO_ENCODER else config.encoder,
        encoder_scale=config.encoder_scale,
        encoder_weights=_encoder_weights(run, config),
        encoder_license=run.encoder_facts().get("license", ""),
        size=config.image_size,
        quoted=json.dumps(name, ensure_ascii=False),
        argument=shlex.quote(name),
        onnx=onnx,
        training=_training(run, config, facts),
        recipe=recipe(config),
        evaluated_step=evaluated_step,
        evaluation=evaluation,
    )
    return f"{card.content}\n"


def recipe(config: TrainConfig) -> str:
    """Return what decided the numbers of a training, where it is not at its default, as YAML."""
    defaults = {name: flag.default for name, flag in flags_of(TrainConfig).items()}
    values = {name: getattr(config, name) for name in RECIPE_FIELDS}
    chosen = {name: value for name, value in values.items() if value != defaults[name]}
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in chosen.items())


def _encoder_weights(run: RunDirectory, config: TrainConfig) -> str:
    """Return whose weights the encoder began with: whoever passes it on has to tell."""
    facts = run.encoder_facts()
    if facts:
        return f"{facts.get('origin', 'unknown')}, SHA-256 `{facts['sha256'][:16]}`"
    return "a model of another training" if config.init_from is not None else ""


def _training(run: RunDirectory, config: TrainConfig, facts: Mapping[str, Any]) -> dict[str, str]:
    digest = run.shards_digest()
    seen = facts["samples_seen"]
    rows = {"photographs": f"shards with the digest `{digest[:16]}`"}
    count = _count_photographs(config, digest)
    if count:
        rows["photographs"] = f"{count:,}, {rows['photographs']}"
    rows["steps"] = f"{facts['step']:,} of {config.total_steps:,}"
    rows["samples seen"] = f"{seen:,}" + (f" ({seen / count:.1f} epochs)" if count else "")
    rows["processes"] = str(facts["world_size"])
    averaged = f"their moving average, decay {config.ema_decay:g}"
    rows["weights"] = averaged if config.ema_decay > 0 else "of the last step"
    rows["versions"] = ", ".join(f"{name} {v}" for name, v in facts["versions"].items())
    return rows


def _count_photographs(config: TrainConfig, digest: str) -> int | None:
    """Return the size of the train split, or None if the shards are not where they were."""
    try:
        train, _ = open_training(config)
    except UserError:
        return None
    return epoch_samples(train) if digest_of(train) == digest else None


def _evaluation(run: RunDirectory, step: int) -> tuple[int, dict[str, float]]:
    """Return the last evaluation at or before `step`, from metrics.jsonl; an empty one, if none."""
    lines = run.metrics_file.read_text().splitlines() if run.metrics_file.exists() else []
    last: tuple[int, dict[str, float]] = (0, {})
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a killed run may leave half a line
        values = {
            name.removeprefix(EVALUATION): value
            for name, value in record.items()
            if name.startswith(EVALUATION)
        }
        if values and record["step"] <= step:
            last = record["step"], values
    return last
