"""Networks from weight files: what is missing is named, and what is there computes as published.

The published weights can't be had here, so these are files of the same form with random numbers.
"""

import sys
import warnings
from hashlib import sha256

import pytest
import torch
import torchvision.models as tv
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image.fid import FrechetInceptionDistance

from pix2pix.errors import UserError
from pix2pix.evaluation.features import NEEDED, find_weights, frechet_distance, load_networks

CPU = torch.device("cpu")


def pictures(seed: int, count: int = 3, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A folder with random weights, under the names and keys of the published ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for metric, build in (("lpips", tv.alexnet), ("lpips_vgg", tv.vgg16)):
        state = build(weights=None).features.state_dict()
        state = {f"features.{name}": value for name, value in state.items()}
        torch.save(state, folder / NEEDED[metric].names[0])
    with pytest.MonkeyPatch.context() as patch:  # its constructor wants a file, this makes it
        patch.setattr(torch, "load", lambda *args, **options: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path="")
    for value in network.parameters():
        if value.ndim == 4:  # torch's own would let the features fade to nothing
            torch.nn.init.kaiming_normal_(value)
    torch.save(network.state_dict(), folder / NEEDED["fid"].names[0])
    return folder


def test_inception_from_a_file_gives_the_fid_of_torchmetrics(random_weights):
    networks = load_networks(["fid"], random_weights, CPU)
    one, other = pictures(1), pictures(2) // 2
    with torch.inference_mode():
        found = frechet_distance(*(networks.features(p).numpy() for p in (one, other)))
    path = str(random_weights / NEEDED["fid"].names[0])
    theirs = FrechetInceptionDistance(2048, feature_extractor_weights_path=path)
    theirs.set_dtype(torch.float64)
    theirs.update(other, real=True)
    theirs.update(one, real=False)
    assert found > 1
    # 2,048 features of 3 pictures: the rounding of its 2,046 eigenvalues that are 0 adds up.
    assert found == pytest.approx(theirs.compute().item(), rel=0.02)


@pytest.mark.parametrize(("metric", "trunk"), [("lpips", "alex"), ("lpips_vgg", "vgg")])
def test_lpips_from_a_file_agrees_with_torchmetrics(random_weights, metric, trunk):
    networks = load_networks([metric], random_weights, CPU)
    assert networks.features is None
    one, other = pictures(1).float() / 255, pictures(2).float() / 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _LPIPS(net=trunk, pnet_rand=True)
    state = torch.load(random_weights / NEEDED[metric].names[0], weights_only=True)
    for name, value in theirs.net.state_dict().items():
        value.copy_(state[f"features.{name.rsplit('.', 2)[-2]}.{name.rsplit('.', 1)[-1]}"])
    with torch.inference_mode():
        found = networks.distances[metric](one, other)
        expected = theirs(one, other, normalize=True).flatten()
    assert found.shape == (3,)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert (found > 0).all()


def test_the_report_says_of_which_file_and_that_it_is_not_the_published_one(random_weights):
    said = load_networks(["lpips"], random_weights, CPU).weights["lpips"]
    digest = sha256((random_weights / NEEDED["lpips"].names[0]).read_bytes()).hexdigest()
    assert said == f"alexnet-owt-7be5be79.pth, SHA-256 {digest[:8]}…, NOT the published file"


@pytest.mark.parametrize("metric", NEEDED)
def test_a_missing_file_is_named_with_where_it_is_from_and_where_it_goes(tmp_path, metric):
    needed = NEEDED[metric]
    with pytest.raises(UserError) as caught:
        load_networks([metric], tmp_path, CPU)
    text = str(caught.value)
    assert f"--metrics {metric}" in text
    assert f"{needed.folder}/{needed.names[0]}" in text
    assert str(tmp_path) in text
    assert "--weights" in text


def test_without_a_folder_torchs_own_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"hub/checkpoints"):
        find_weights("fid", None)
    # The name that pytorch-fid gives the same file.
    path = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_weights("kid", None) == path


@pytest.mark.parametrize("metric", ["fid", "lpips"])
@pytest.mark.parametrize("content", ["cut short", "of another network"])
def test_a_file_that_is_not_the_weights_is_a_clear_error(tmp_path, metric, content):
    path = tmp_path / NEEDED[metric].names[0]
    torch.save({"weight": torch.zeros(3)}, path)
    if content == "cut short":
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"\.pth is damaged, or of another network"):
        load_networks([metric], tmp_path, CPU)


@pytest.mark.parametrize(("metric", "package"), [("fid", "torch_fidelity"), ("lpips", "lpips")])
def test_a_missing_package_is_named(random_weights, monkeypatch, metric, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[metrics\]'"):
        load_networks([metric], random_weights, CPU)
