"""An exported generator: what is saved is loaded, damage is an error, the hub is a real server."""

import json
import os
import pickle
import re
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from pix2pix.errors import UserError
from pix2pix.export import generator as generator_module
from pix2pix.export.generator import Generator
from pix2pix.model.networks import initialize
from tests.hub_server import HubServer
from tests.small_training import tensor_digests

CARD = "---\nlicense: mit\n---\n# Größe\n"


def new_generator(**settings) -> Generator:
    generator = Generator(**({"image_size": 64, "width": 4} | settings))
    initialize(generator, torch.Generator().manual_seed(0))
    return generator.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    generator = new_generator()
    generator.card = CARD
    generator.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"color_space": "rgb", "width": 2},
        {"norm": "instance", "dropout": False},
        {"image_size": 128, "width": 2},
    ],
)
def test_what_is_saved_is_loaded(tmp_path, settings):
    generator = new_generator(**settings)
    generator.save_pretrained(tmp_path)
    loaded = Generator.from_pretrained(tmp_path)
    assert loaded.config == generator.config == {**Generator(width=1).config, **loaded.config}
    assert loaded.color_space == generator.color_space
    assert loaded.image_size == generator.image_size
    assert tensor_digests(loaded.state_dict()) == tensor_digests(generator.state_dict())
    side = loaded.image_size
    condition = torch.linspace(-1, 1, 2 * side * side).view(2, 1, side, side)
    assert torch.equal(loaded(condition), generator(condition))


def test_the_card_goes_where_the_weights_go(saved, tmp_path):
    loaded = Generator.from_pretrained(saved)
    assert loaded.card == CARD
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_bytes() == CARD.encode()


def test_a_loaded_generator_can_be_trained_on(saved):
    generator = Generator.from_pretrained(saved)
    assert not generator.training
    before = generator.down[0].weight.clone()
    optimizer = torch.optim.SGD(generator.parameters(), lr=1.0)
    generator.train()(torch.ones(2, 1, 64, 64)).sum().backward()
    optimizer.step()
    assert not torch.equal(generator.down[0].weight, before)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_bytes()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def drop_a_weight(folder: Path) -> None:
    """A whole file, with its checksum, but a tensor short: the mixin's own loader would take it."""
    weights = load_file(folder / "model.safetensors")
    del weights["down.0.weight"]
    save_file(weights, folder / "model.safetensors")
    data = (folder / "model.safetensors").read_bytes()
    change_config(folder, weights_sha256=generator_module.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_bit, "model.safetensors is damaged: its checksum differs"),
        (cut_weights, "model.safetensors is damaged: its checksum differs"),
        (drop_a_weight, "does not hold the network that config.json describes"),
        (lambda f: change_config(f, image_size=128), "does not hold the network that config.json"),
        (lambda f: change_config(f, image_size=63), "does not hold the network that config.json"),
        (lambda f: change_config(f, width="4"), "does not hold the network that config.json"),
        (lambda f: change_config(f, width=-4), "does not hold the network that config.json"),
        (lambda f: change_config(f, color_space="xyz"), "does not hold the network that config"),
        (lambda f: change_config(f, pix2pix_version="9.0", depth=3), "exported by pix2pix 9.0"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged, or of another"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json is damaged, or of another"),
        (lambda f: (f / "config.json").write_text("{}"), "config.json is damaged, or of another"),
        (lambda f: (f / "config.json").unlink(), r"nor an exported model \(no config.json\)"),
        (lambda f: (f / "model.safetensors").unlink(), r"\(no model.safetensors\)"),
    ],
)
def test_a_damaged_export_is_one_clear_error(copy, damage, words):
    damage(copy)
    with pytest.raises(UserError, match=words):
        Generator.from_pretrained(copy)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_nothing_is_unpickled(copy, monkeypatch):
    monkeypatch.chdir(copy)
    bomb = pickle.dumps(Bomb())
    (copy / "pytorch_model.bin").write_bytes(bomb)
    Generator.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError):
        Generator.from_pretrained(copy)
    (copy / "model.safetensors").write_bytes(bomb)
    change_config(copy, weights_sha256=generator_module.sha256(bomb).hexdigest())
    with pytest.raises(UserError, match="does not hold the network"):
        Generator.from_pretrained(copy)
    assert not (copy / "exploded").exists()


def send_to(url: str, monkeypatch) -> None:
    """What HF_ENDPOINT would do before the library is imported."""
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of our own; without an environment that would send the library elsewhere."""
    with HubServer() as server:
        send_to(server.url, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(generator_module, "TIMEOUT_SECONDS", 0.5)
        yield server


def test_what_is_pushed_to_the_hub_is_loaded_from_it(saved, hub):
    generator = Generator.from_pretrained(saved)
    generator.push_to_hub("model", token="hf_secret")
    assert set(hub.models["me/model"]) == {"model.safetensors", "config.json", "README.md"}
    assert hub.models["me/model"]["README.md"] == CARD.encode()
    loaded = Generator.from_pretrained("me/model")
    assert tensor_digests(loaded.state_dict()) == tensor_digests(generator.state_dict())
    assert (loaded.config, loaded.card) == (generator.config, CARD)


def test_the_example_of_the_docs_works(saved, hub, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "out" / "model")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], {})
    assert set(hub.models) == {"owner/name"}


def test_a_model_of_the_hub_has_no_need_of_a_card_and_brings_nothing_else(saved, hub, tmp_path):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    del files["README.md"]
    hub.models["me/bare"] = files | {"pytorch_model.bin": b"", "huge.onnx": b"x"}
    assert Generator.from_pretrained("me/bare").card is None
    assert not [request for request in hub.asked if "bin" in request or "onnx" in request]


def test_what_was_downloaded_works_while_the_hub_is_silent(saved, hub):
    hub.models["me/model"] = {path.name: path.read_bytes() for path in saved.iterdir()}
    Generator.from_pretrained("me/model")
    hub.silent.set()
    assert Generator.from_pretrained("me/model").config["width"] == 4


def test_a_hub_that_is_silent_is_one_error_soon(hub):
    hub.silent.set()
    started = time.monotonic()
    with pytest.raises(UserError, match=f"no folder me/model, and {hub.url} can't be asked for a"):
        Generator.from_pretrained("me/model")
    assert time.monotonic() - started < 10


def test_a_hub_that_cannot_be_reached_is_one_error_soon(hub, monkeypatch):
    send_to("http://127.0.0.1:9", monkeypatch)  # a port where nobody listens
    started = time.monotonic()
    with pytest.raises(UserError, match=r"there is no folder me/model, and .* can't be asked for"):
        Generator.from_pretrained("me/model")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("source", "words", "asks"),
    [
        ("me/absent", "shows you no model of that name; if it is private", True),
        ("nowhere", "no folder nowhere; a model on the hub is written owner/name", False),
        ("runs/a/b", "no folder runs/a/b; a model on the hub is written", False),
        ("/no/where", "no folder /no/where; a model on the hub is written", False),
        ("bad name/..", "and no model can have that name on the hub", False),
    ],
)
def test_what_is_neither_folder_nor_model_is_told_so(
    hub, tmp_path, monkeypatch, source, words, asks
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        Generator.from_pretrained(source)
    assert any(source in request for request in hub.asked) == asks


def test_a_file_is_no_folder(saved, hub):
    with pytest.raises(UserError, match="is a file; give the folder that contains it"):
        Generator.from_pretrained(saved / "model.safetensors")
    assert hub.asked == []
