"""An export is the run's best generator, complete or absent; its card tells what made it."""

import errno
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from PIL import Image
from safetensors.torch import load_file

from pix2pix.cli.command_line import parse
from pix2pix.colorizing.colorizer import Colorizer
from pix2pix.config import TrainConfig
from pix2pix.errors import UserError
from pix2pix.export import export as export_module
from pix2pix.export.card import recipe
from pix2pix.export.export import export, generator_of
from pix2pix.export.generator import Generator
from pix2pix.run.run_directory import RunDirectory
from pix2pix.run.weights import newest_checkpoint
from tests.photographs import colorful
from tests.ranks import run_ranks
from tests.small_training import fit, tensor_digests, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "a model"
    export(trained_run, out, license="cc-by-4.0")
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def averaged_digests(run_dir: Path) -> dict[str, str]:
    values = {"generator_average": Generator(image_size=64, width=4).state_dict()}
    dcp.load(values, storage_reader=dcp.FileSystemReader(newest_checkpoint(run_dir)), no_dist=True)
    return tensor_digests(values["generator_average"])


def test_weights_are_those_of_the_run_to_the_bit(trained_run, exported):
    expected = averaged_digests(trained_run)
    assert tensor_digests(load_file(exported / "model.safetensors")) == expected
    loaded = Generator.from_pretrained(exported)
    assert tensor_digests(loaded.state_dict()) == expected


def test_a_run_without_an_average_exports_its_last_weights(tiny_shards, tmp_path):
    run_dir = tmp_path / "run"
    config = tiny_config(tiny_shards, run_dir, ema_decay=0, total_steps=1, color_space="rgb")
    state = run_ranks(fit, 1, config)[0]["digests"]
    export(run_dir, tmp_path / "model")
    weights = tensor_digests(load_file(tmp_path / "model" / "model.safetensors"))
    prefix = "state.generator."
    assert weights == {n.removeprefix(prefix): d for n, d in state.items() if n.startswith(prefix)}
    assert Generator.from_pretrained(tmp_path / "model").color_space.name == "rgb"


def test_it_colors_without_the_run_as_the_run_does(trained_run, exported, tmp_path):
    run_dir = Path(shutil.copytree(trained_run, tmp_path / "run"))
    out = tmp_path / "model"
    export(run_dir, out)
    photo = colorful(90, 70)
    by_run = np.array(Colorizer.from_path(run_dir).colorize(photo))
    shutil.rmtree(run_dir)
    assert np.array_equal(np.array(Colorizer.from_path(out).colorize(photo)), by_run)
    assert np.array_equal(np.array(Colorizer.from_path(str(exported)).colorize(photo)), by_run)


def test_a_run_of_synchronized_norms_exports_a_generator_that_one_process_can_train(
    trained_run, tmp_path
):
    run_dir = Path(shutil.copytree(trained_run, tmp_path / "run"))
    checkpoint = newest_checkpoint(run_dir)
    batch = generator_of(run_dir, checkpoint)
    text = (run_dir / "config.json").read_text()
    (run_dir / "config.json").write_text(text.replace('"norm": "batch"', '"norm": "sync_batch"'))
    synchronized = generator_of(run_dir, checkpoint)
    assert synchronized.config == batch.config
    assert tensor_digests(synchronized.state_dict()) == tensor_digests(batch.state_dict())


def test_the_card_tells_what_made_it(trained_run, exported):
    card = (exported / "README.md").read_text()
    lines = (trained_run / "metrics.jsonl").read_text().splitlines()
    last = [record for record in map(json.loads, lines) if "evaluation/psnr" in record][-1]
    assert last["step"] == 4
    for words in (
        "| photographs | 24, shards with the digest `",
        "| steps | 4 of 4 |",
        "| samples seen | 24 (1.0 epochs) |",
        "moving average, decay 0.999",
        f"torch {torch.__version__.partition('+')[0]}",
        "After step 4, means over the photographs of the `val` split",
        f"| psnr | {last['evaluation/psnr']:.3f} |",
        f"| colorfulness | {last['evaluation/colorfulness']:.3f} |",
        "## License\n\n`cc-by-4.0`",
    ):
        assert words in card
    assert "model.onnx" not in card
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "license": "cc-by-4.0",
        "library_name": "pix2pix",
        "pipeline_tag": "image-to-image",
        "tags": ["colorization", "pix2pix"],
    }


def test_the_card_tells_no_path_of_the_machine(trained_run, exported):
    config = RunDirectory(trained_run).read_config()
    for text in contents(exported).values():
        for path in (*config.shards, trained_run, Path.cwd(), exported.parent):
            assert os.fsencode(path) not in text


def test_the_recipe_of_the_card_is_that_of_the_run(trained_run, exported, tmp_path):
    card = (exported / "README.md").read_text()
    (tmp_path / "recipe.yaml").write_text(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0])
    flags = ["--shards=s", "--run_dir=r", f"--config={tmp_path / 'recipe.yaml'}"]
    again, config = parse(TrainConfig, flags), RunDirectory(trained_run).read_config()
    assert again.identity() == config.identity()
    assert again.total_steps == 4
    assert recipe(again) == recipe(config)


def test_the_example_of_the_card_works(exported, tmp_path, monkeypatch):
    shutil.copytree(exported, tmp_path / exported.name)
    colorful(50, 40).save(tmp_path / "old.jpg")
    monkeypatch.chdir(tmp_path)
    card = (exported / "README.md").read_text()
    exec(re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0], {})
    with Image.open("colored.jpg") as colored:
        assert colored.size == (50, 40)


def test_a_card_without_license_evaluation_or_shards_says_so(trained_run, tmp_path):
    run_dir = Path(shutil.copytree(trained_run, tmp_path / "run"))
    text = (run_dir / "config.json").read_text()
    (shards,) = RunDirectory(run_dir).read_config().shards
    (run_dir / "config.json").write_text(text.replace(shards, str(tmp_path / "gone")))
    (run_dir / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 4, "evalu')
    export(run_dir, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "license:" not in card
    assert "None was given with this export" in card
    assert "This run was not evaluated." in card
    assert "| photographs | shards with the digest `" in card
    assert "| samples seen | 24 |" in card


def test_an_evaluation_after_the_exported_step_is_not_its_own(trained_run, tmp_path):
    run_dir = Path(shutil.copytree(trained_run, tmp_path / "run"))
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "evaluation/psnr": 99.0}\n')
    export(run_dir, tmp_path / "model")
    assert "After step 4" in (tmp_path / "model" / "README.md").read_text()


def test_the_same_export_again_is_done_already(trained_run, exported):
    before = contents(exported)
    said = export(trained_run, exported, license="cc-by-4.0")
    assert said == [f"{exported} holds this export already: nothing to do"]
    assert contents(exported) == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_another_export_is_not_overwritten(trained_run, exported):
    before = contents(exported)
    with pytest.raises(UserError, match="holds another export; choose another --out, or remove"):
        export(trained_run, exported, license="mit")
    assert contents(exported) == before


def test_an_empty_folder_is_filled_and_another_is_left_alone(trained_run, exported, tmp_path):
    (tmp_path / "empty").mkdir()
    export(trained_run, tmp_path / "empty", license="cc-by-4.0")
    assert contents(tmp_path / "empty").keys() == contents(exported).keys()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files; choose another --out"):
        export(trained_run, tmp_path / "other")
    with pytest.raises(UserError, match="is a file; --out is the folder to create"):
        export(trained_run, tmp_path / "other" / "letter.txt")
    assert contents(tmp_path / "other") == {"letter.txt": b"dear"}


@pytest.mark.parametrize("failing", ["flush", "model_card", "write_onnx"])
def test_an_export_that_fails_leaves_nothing(trained_run, tmp_path, monkeypatch, failing):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export_module, failing, full)
    with pytest.raises((UserError, OSError), match="No space left on device"):
        export(trained_run, tmp_path / "model", onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed_and_said(trained_run, tmp_path):
    dead, living = (tmp_path / f".model.{process}.tmp" for process in (2**22 + 1, os.getppid()))
    for folder in (dead, living):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    said = export(trained_run, tmp_path / "model")
    assert f"removed {dead.name}: its export was cut short" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [living.name, "model"]


def run_script(monkeypatch, name: str, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / name), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    return ended.value.code or 0


def test_the_scripts_export_with_onnx_and_color_with_that(
    trained_run, tmp_path, monkeypatch, capsys
):
    out, colored = tmp_path / "model", tmp_path / "colored"
    arguments = ("--run_dir", trained_run, "--out", out, "--onnx", "true", "--license", "mit")
    assert run_script(monkeypatch, "export.py", *arguments) == 0
    said = capsys.readouterr().out
    assert f"step 4 of {trained_run}: {out}" in said
    assert re.search(r"model.onnx: at most \S+e-\d+ from torch", said)
    assert contents(out).keys() == {"model.safetensors", "config.json", "README.md", "model.onnx"}
    card = (out / "README.md").read_text()
    assert "`condition` [batch, 1, 64, 64] →\n`painting` [batch, 2, 64, 64]" in card
    colorful(50, 40).save(tmp_path / "old.jpg")
    arguments = ("--run_dir", out, "--photos", tmp_path / "old.jpg", "--out", colored)
    assert run_script(monkeypatch, "colorize.py", *arguments) == 0
    assert [path.name for path in colored.glob("[!.]*")] == ["old.jpg"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("absent", "is not a run directory"),
        ("model", "config.json is damaged, or not from a run"),
    ],
)
def test_what_is_no_run_is_one_error(exported, tmp_path, source, words):
    shutil.copytree(exported, tmp_path / "model")
    with pytest.raises(UserError, match=words):
        export(tmp_path / source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_checkpoint_is_told_so(trained_run, tmp_path):
    run_dir = Path(shutil.copytree(trained_run, tmp_path / "run"))
    shutil.rmtree(newest_checkpoint(run_dir))
    for use in (Colorizer.from_path, lambda run_dir: export(run_dir, tmp_path / "model")):
        with pytest.raises(UserError, match="has no checkpoint yet; train it first"):
            use(run_dir)
