"""The model card of an export, filled from its run: what it is, how to use it, what made it."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from pix2pix.cli.options import flags_of
from pix2pix.config import IDENTITY_FIELDS, TrainConfig
from pix2pix.data.data_set import digest_of, epoch_samples, open_training
from pix2pix.errors import UserError
from pix2pix.export.generator import LIBRARY, PIPELINE, TAGS
from pix2pix.run.run_directory import RunDirectory

EVALUATION = "evaluation/"  # how these names begin in metrics.jsonl
RECIPE_FIELDS = (
    *IDENTITY_FIELDS,
    "total_steps",
    "decay_start",
    "precision",
    "grad_accumulation_steps",
)

CARD = """\
---
{metadata}
---

# A colorizer of black-and-white photographs

{what} It was trained as the conditional GAN of pix2pix (Isola et al. 2017).

```python
from pathlib import Path

from pix2pix import Colorizer, open_photo

colorizer = Colorizer.from_path({quoted})  # this folder, or owner/name on the Hugging Face hub
colorizer.colorize(open_photo(Path("old.jpg"))).save("colored.jpg")
```

`pix2pix-colorize --run_dir {argument} --photos photos --out colored` does it for a folder of
photographs of any size. `pix2pix.Generator.from_pretrained` gives the network alone.
{onnx}
The colors are likely ones, learned from photographs: they are no evidence of what was there.

## Training

{training}

The same as a recipe, for `scripts/train.py --config`:

```yaml
{recipe}
```

## Evaluation

{evaluation}

## License

{license}
"""

WHAT = {
    "lab": "A U-Net that is given the lightness of a photograph and paints its chroma, at "
    "{size} × {size} pixels; the lightness stays that of the photograph, at its full resolution.",
    "rgb": "A U-Net that is given a gray photograph and paints it in color, at {size} × {size} "
    "pixels; of that the chroma is taken, and the lightness stays that of the photograph.",
}
ONNX = """
`model.onnx` is the network for other runtimes: `condition` [batch, 1, {size}, {size}] →
`painting` [batch, {channels}, {size}, {size}], float32. {scales}
"""
SCALES = {
    "lab": "The condition is L/50 − 1 of CIE Lab (D65), the painting a/110 and b/110.",
    "rgb": "Gray, and red, green and blue, of sRGB, are scaled from [0, 1] to [−1, 1].",
}
METRICS = (
    "PSNR in dB and SSIM over R, G and B, chroma error as the mean distance in the ab plane of CIE "
    "Lab, colorfulness after Hasler and Süsstrunk 2003, beside that of the true photographs."
)


def model_card(
    run: RunDirectory, facts: Mapping[str, Any], name: str, license: str | None, onnx: bool
) -> str:
    """The card, as Markdown under the hub's metadata; without a path of this machine.

    facts: state.json of the exported checkpoint. name: of the folder that it goes to. license: as
    the hub names it, such as `mit`; None: the card says that none was given.
    """
    config = run.read_config()
    space, size = config.color_space, config.image_size
    metadata = ModelCardData(
        license=license, library_name=LIBRARY, pipeline_tag=PIPELINE, tags=TAGS
    )
    scales = ONNX.format(size=size, channels=2 if space == "lab" else 3, scales=SCALES[space])
    return CARD.format(
        metadata=metadata.to_yaml(),
        what=WHAT[space].format(size=size),
        quoted=json.dumps(name, ensure_ascii=False),
        argument=shlex.quote(name),
        onnx=scales if onnx else "",
        training=_table(_training(run, config, facts)),
        recipe=recipe(config),
        evaluation=_evaluation(run, facts["step"]),
        license=_license(license),
    )


def recipe(config: TrainConfig) -> str:
    """What decided the numbers of a training, where it is not at its default, as YAML."""
    defaults = {name: flag.default for name, flag in flags_of(TrainConfig).items()}
    values = {name: getattr(config, name) for name in RECIPE_FIELDS}
    chosen = {name: value for name, value in values.items() if value != defaults[name]}
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in chosen.items())


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
    """How many the train split holds; None if the shards are not where they were."""
    try:
        train, _ = open_training(config)
    except UserError:
        return None
    return epoch_samples(train) if digest_of(train) == digest else None


def _evaluation(run: RunDirectory, step: int) -> str:
    """The last evaluation at or before `step`, from metrics.jsonl."""
    lines = run.metrics_file.read_text().splitlines() if run.metrics_file.exists() else []
    last: dict[str, Any] = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a killed run may leave half a line
        if record["step"] <= step and any(name.startswith(EVALUATION) for name in record):
            last = record
    if not last:
        return "This run was not evaluated."
    rows = {
        name.removeprefix(EVALUATION): f"{value:.3f}"
        for name, value in last.items()
        if name.startswith(EVALUATION)
    }
    where = f"After step {last['step']:,}, means over the photographs of the `val` split, center "
    return f"{where}squares.\n{METRICS}\n\n{_table(rows)}"


def _license(license: str | None) -> str:
    if license is None:
        return (
            "None was given with this export. Ask whoever made it, and mind the licenses of the "
            "photographs that it was trained on."
        )
    return f"`{license}`"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {n} | {value} |" for n, value in rows.items())])
