"""ONNX paints what torch paints, for any batch, and tells nothing of the machine it was made on."""

from pathlib import Path

import onnxruntime
import pytest
import torch

from pix2pix.errors import UserError
from pix2pix.export import onnx as onnx_model
from pix2pix.export.generator import Generator
from pix2pix.export.onnx import require_onnx, write_onnx
from pix2pix.model.networks import initialize


def vivid(**settings) -> Generator:
    """A generator whose paintings fill the range: an untrained one's are near zero."""
    generator = Generator(**({"image_size": 64, "width": 4} | settings))
    initialize(generator, torch.Generator().manual_seed(0))
    with torch.no_grad():
        generator.up[-1][1].weight.mul_(100)
        for buffer in generator.buffers():  # statistics that are not those of a start
            if buffer.is_floating_point():
                buffer.add_(0.1)
    return generator.eval()


@pytest.fixture(scope="module", params=[{}, {"color_space": "rgb", "norm": "instance"}], ids=str)
def written(request, tmp_path_factory) -> tuple[Generator, Path, float]:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    generator = vivid(**request.param)
    return generator, path, write_onnx(generator, path)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_paints_what_torch_paints_for_any_batch(written, batch):
    generator, path, difference = written
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    condition = torch.rand(batch, 1, 64, 64, generator=torch.Generator().manual_seed(9)) * 2 - 1
    (painting,) = session.run(["painting"], {"condition": condition.numpy()})
    with torch.inference_mode():
        expected = generator(condition)
    assert expected.std() > 0.1
    torch.testing.assert_close(torch.from_numpy(painting), expected, rtol=0, atol=1e-4)
    assert 0 < difference < 1e-4


def test_it_is_one_file_that_tells_no_path(written):
    _, path, _ = written
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    data = path.read_bytes()
    assert b"networks.py" not in data
    assert str(Path(__file__).parents[2]).encode() not in data


def test_another_painting_is_refused(tmp_path, monkeypatch):
    generator = vivid()
    export = torch.onnx.export

    def export_another(*args, **keywords):
        program = export(*args, **keywords)
        save = program.save

        def save_and_change(*args, **keywords):
            save(*args, **keywords)
            with torch.no_grad():
                generator.up[-1][1].weight.mul_(1.01)

        program.save = save_and_change
        return program

    monkeypatch.setattr(torch.onnx, "export", export_another)
    with pytest.raises(UserError, match=r"model.onnx gives other colors than the network \(by"):
        write_onnx(generator, tmp_path / "model.onnx")


def test_a_missing_package_is_told_with_the_extra_that_brings_it(monkeypatch):
    require_onnx()
    monkeypatch.setattr(onnx_model, "PACKAGES", ("onnx", "absent_package"))
    with pytest.raises(UserError, match=r"ONNX needs absent_package, .* install -e '\.\[onnx\]'"):
        require_onnx()
