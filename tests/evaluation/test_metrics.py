import math

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from pix2pix.evaluation import metrics
from pix2pix.model.color import rgb_to_lab


@pytest.fixture
def photographs():
    """Two smooth pictures and their noisy copies, both [2, 3, 48, 40] in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 6, 5, generator=generator)
    truth = torch.nn.functional.interpolate(coarse, (48, 40), mode="bilinear")
    noise = torch.randn(truth.shape, generator=generator) * torch.tensor([0.02, 0.1]).view(
        2, 1, 1, 1
    )
    return (truth + noise).clamp(0, 1), truth


def test_psnr_agrees_with_torchmetrics(photographs):
    rgb, truth = photographs
    expected = [
        peak_signal_noise_ratio(a[None], b[None], data_range=1.0).item()
        for a, b in zip(rgb, truth, strict=True)
    ]
    assert metrics.psnr(rgb, truth).tolist() == pytest.approx(expected, abs=1e-3)


def test_ssim_agrees_with_torchmetrics_where_the_window_lies_inside(photographs):
    rgb, truth = (image.double() for image in photographs)
    # torchmetrics averages its reflected borders too; Wang et al. and skimage do not.
    _, full = structural_similarity_index_measure(
        rgb, truth, data_range=1.0, reduction="none", return_full_image=True
    )
    expected = full[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3))
    assert metrics.ssim(rgb, truth).tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_ssim_agrees_with_skimage(photographs):
    expected = [
        structural_similarity(
            a.double().numpy(),
            b.double().numpy(),
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        for a, b in zip(*photographs, strict=True)
    ]
    rgb, truth = (image.double() for image in photographs)
    assert metrics.ssim(rgb, truth).tolist() == pytest.approx(expected, abs=1e-9)


def test_chroma_error_agrees_with_skimage_and_ignores_lightness(photographs):
    rgb, truth = (image.double() for image in photographs)
    a, b = (torch.from_numpy(rgb2lab(image.movedim(1, -1).numpy())) for image in (rgb, truth))
    expected = (a - b)[..., 1:].norm(dim=-1).mean(dim=(1, 2))
    labs = rgb_to_lab(rgb), rgb_to_lab(truth)
    assert metrics.chroma_error(*labs).tolist() == pytest.approx(expected.tolist(), abs=1e-2)
    darker = labs[0] * torch.tensor([0.5, 1, 1]).view(1, 3, 1, 1)
    assert metrics.chroma_error(labs[0], darker).tolist() == [0, 0]


def test_colorfulness_by_hand():
    # Red, green, blue: rg = 255, -255, 0 and yb = 127.5, 127.5, -255. Signed, so the means are 0.
    spread = math.sqrt((2 * 255**2 + 2 * 127.5**2 + 255**2) / 3)
    assert metrics.colorfulness(torch.eye(3).view(1, 3, 1, 3)).item() == pytest.approx(spread)
    # All red: no spread, only the offset.
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    offset = math.hypot(255, 127.5)
    assert metrics.colorfulness(red).item() == pytest.approx(0.3 * offset)


def test_gray_has_no_colorfulness():
    assert metrics.colorfulness(torch.rand(2, 1, 8, 8).expand(2, 3, 8, 8)).tolist() == [0, 0]


def test_chroma_colorfulness_by_hand():
    # a = 30, -10 and b = 0, 0: deviation 20, and the mean (10, 0).
    chroma = torch.tensor([[[30.0, -10.0]], [[0.0, 0.0]]])[None]
    assert metrics.chroma_colorfulness(chroma).item() == pytest.approx(20 + 0.37 * 10)


def test_chroma_colorfulness_of_one_tint_is_low_and_of_gray_is_0():
    tint = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(2, 2, 8, 8)
    assert metrics.chroma_colorfulness(tint).tolist() == pytest.approx([0.37 * 5] * 2)
    assert metrics.chroma_colorfulness(0 * tint).tolist() == [0, 0]


def test_identical_photographs_are_perfect_and_finite(photographs):
    _, truth = photographs
    values = metrics.photo_metrics(truth, truth)
    assert values["psnr"].tolist() == [100, 100]
    assert values["ssim"].tolist() == pytest.approx([1, 1])
    assert values["chroma_error"].tolist() == [0, 0]
    assert torch.equal(values["colorfulness"], values["colorfulness_truth"])


def test_quantize_rounds_to_the_nearest_of_256_levels_and_clips():
    rgb = torch.tensor([-0.1, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.1])
    assert (metrics.quantize(rgb) * 255).tolist() == pytest.approx([0, 0, 1, 255, 255])


def test_photo_metrics_measures_what_an_8_bit_file_would_hold(photographs):
    rgb, truth = photographs
    values = metrics.photo_metrics(rgb, truth)
    assert list(values) == ["psnr", "ssim", "chroma_error", "colorfulness", "colorfulness_truth"]
    assert all(v.shape == (2,) and v.dtype == torch.float64 for v in values.values())
    from_file = metrics.photo_metrics(metrics.quantize(rgb), metrics.quantize(truth))
    assert all(torch.equal(values[name], from_file[name]) for name in values)
    assert values["psnr"][0] > values["psnr"][1]


def test_a_photographs_metrics_do_not_depend_on_its_batch(photographs):
    rgb, truth = photographs
    together = metrics.photo_metrics(rgb, truth)
    alone = metrics.photo_metrics(rgb[1:], truth[1:])
    for name, values in together.items():
        torch.testing.assert_close(values[1:], alone[name], rtol=1e-12, atol=1e-12)


def test_colorings_of_one_photograph_are_measured_beside_it_as_each_alone(photographs):
    rgb, truth = photographs
    beside = metrics.photo_metrics(rgb, truth[:1])
    for row in range(2):
        alone = metrics.photo_metrics(rgb[row : row + 1], truth[:1])
        for name, values in beside.items():
            torch.testing.assert_close(values[row : row + 1], alone[name], rtol=1e-12, atol=1e-12)


def test_single_precision_is_as_good_as_double(photographs):
    rgb, truth = (metrics.quantize(image) for image in photographs)
    single = metrics.photo_metrics(rgb, truth)
    double = metrics.photo_metrics(rgb.double(), truth.double())
    for name, values in single.items():
        torch.testing.assert_close(values, double[name], rtol=1e-5, atol=1e-6)


def test_detailed_metrics_are_the_basic_ones_and_those_that_skimage_and_numpy_give(photographs):
    rgb, truth = (metrics.quantize(image.double()) for image in photographs)
    values = metrics.detailed_metrics(rgb, truth, rgb_to_lab(rgb), rgb_to_lab(truth))
    for name, basic in metrics.photo_metrics(rgb, truth).items():
        assert torch.equal(values[name], basic)
    lab, lab_truth = (rgb2lab(image.movedim(1, -1).numpy()) for image in (rgb, truth))
    expected = deltaE_ciede2000(lab, lab_truth).mean(axis=(1, 2))
    assert values["delta_e"].tolist() == pytest.approx(expected.tolist(), abs=1e-3)
    expected = np.linalg.norm(lab - lab_truth, axis=-1).mean(axis=(1, 2))
    assert values["delta_e_76"].tolist() == pytest.approx(expected.tolist(), abs=1e-2)
    for name, picture in (("chroma", lab), ("chroma_truth", lab_truth)):
        expected = np.linalg.norm(picture[..., 1:], axis=-1).mean(axis=(1, 2))
        assert values[name].tolist() == pytest.approx(expected.tolist(), abs=1e-2)
    for name in ("colorfulness", "colorfulness_abs"):
        difference = (values[name] - values[f"{name}_truth"]).abs()
        assert torch.equal(values[f"delta_{name}"], difference)


def test_the_absolute_convention_of_colorfulness_by_hand():
    # Red, green, blue: |rg| = 255, 255, 0 and |yb| = 127.5, 127.5, 255.
    channels = np.array([[255, 255, 0], [127.5, 127.5, 255]])
    expected = math.hypot(*channels.std(axis=1)) + 0.3 * math.hypot(*channels.mean(axis=1))
    found = metrics.colorfulness_abs(torch.eye(3).view(1, 3, 1, 3)).item()
    assert found == pytest.approx(expected)
    assert found < metrics.colorfulness(torch.eye(3).view(1, 3, 1, 3)).item()


def test_a_histogram_of_chroma_counts_every_pixel_in_its_square():
    lab = torch.tensor([[50, 0, 0], [10, 4, -4], [50, 14.9, 5.1], [9, -200, 200]]).double()
    histogram = metrics.chroma_histogram(lab.T.reshape(1, 3, 2, 2))
    assert histogram.shape == (1, 23, 23)
    assert histogram.sum() == 4
    middle = 11  # of gray, whatever the rounding of its a and b
    assert histogram[0, middle, middle] == 2
    assert histogram[0, middle + 1, middle + 1] == 1
    assert histogram[0, 0, 22] == 1


def test_a_histogram_of_one_photograph_does_not_depend_on_its_batch(photographs):
    lab = rgb_to_lab(photographs[1])
    together = metrics.chroma_histogram(lab)
    assert torch.equal(together[1:], metrics.chroma_histogram(lab[1:]))
    a, b = (lab[1, c].flatten().numpy() for c in (1, 2))
    edges = np.arange(-115, 116, 10)
    assert together[1].tolist() == np.histogram2d(a, b, [edges, edges])[0].tolist()


def test_hellinger_distance_by_hand():
    one, other = torch.tensor([[[4, 0]], [[1, 1]]]), torch.tensor([[[0, 9]], [[8, 0]]])
    found = metrics.hellinger(one, other).tolist()
    assert found == pytest.approx([1, math.sqrt(1 - math.sqrt(0.5))])
    assert metrics.hellinger(one, 5 * one).tolist() == pytest.approx([0, 0], abs=1e-7)


def test_bytes_are_those_of_a_picture_file():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(metrics.to_bytes(levels.float() / 255), levels)
