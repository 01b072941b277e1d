import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pix2pix.errors import UserError
from pix2pix.model import losses

TERMS = (losses.discriminator_real, losses.discriminator_fake, losses.generator_adversarial)
LOGITS = torch.tensor([[-2.0, 0.5], [3.0, 0.0]])


def test_bce_is_cross_entropy_with_the_sigmoid_of_the_logits():
    ones, zeros = torch.ones_like(LOGITS), torch.zeros_like(LOGITS)
    real, fake, generator = (term(LOGITS, "bce") for term in TERMS)
    torch.testing.assert_close(real, binary_cross_entropy_with_logits(LOGITS, ones))
    torch.testing.assert_close(fake, binary_cross_entropy_with_logits(LOGITS, zeros))
    torch.testing.assert_close(generator, real)


def test_bce_starts_at_log_2_and_survives_extreme_logits():
    for term in TERMS:
        assert term(torch.zeros(1, 1, 3, 3), "bce").item() == pytest.approx(math.log(2))
    assert losses.discriminator_fake(torch.tensor([1e4]), "bce").item() == 1e4


def test_least_squares_and_hinge_by_hand():
    # (x - 1)², x², (x - 1)² and max(0, 1 - x), max(0, 1 + x), -x for x = -2, 0.5, 3, 0
    expected = {
        "least_squares": ((9 + 0.25 + 4 + 1) / 4, (4 + 0.25 + 9 + 0) / 4, (9 + 0.25 + 4 + 1) / 4),
        "hinge": ((3 + 0.5 + 0 + 1) / 4, (0 + 1.5 + 4 + 1) / 4, (2 - 0.5 - 3 - 0) / 4),
    }
    for kind, values in expected.items():
        assert tuple(term(LOGITS, kind).item() for term in TERMS) == pytest.approx(values)


@pytest.mark.parametrize("kind", losses.GAN_LOSSES)
def test_every_kind_pulls_logits_the_right_way(kind):
    slopes = []
    for term in TERMS:
        logits = torch.zeros(1, requires_grad=True)
        term(logits, kind).backward()
        slopes.append(math.copysign(1, logits.grad.item()) if logits.grad.any() else 0)
    real, fake, generator = slopes
    assert (real, generator) == (-1, -1)  # going up makes it look more real
    assert fake == (0 if kind == "least_squares" else 1)  # 0 is the least-squares target


def test_l1_is_the_mean_over_pixels_and_channels():
    output, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    target[0, 1, 0, 0] = -4
    assert losses.l1(output, target).item() == 0.5


@pytest.mark.parametrize("kind", losses.GAN_LOSSES)
def test_losses_are_float32_under_autocast(kind):
    # Too many for bfloat16 to average: its 8 bits lose the sum.
    logits = torch.linspace(-1, 1, 30_001).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = [term(logits, kind) for term in TERMS] + [losses.l1(logits, logits.flip(0))]
    plain = [term(logits.float(), kind) for term in TERMS]
    plain.append(losses.l1(logits.float(), logits.float().flip(0)))
    assert all(value.dtype == torch.float32 and value.dim() == 0 for value in values)
    assert [value.item() for value in values] == [value.item() for value in plain]


def test_unknown_kind_is_a_user_error_that_lists_the_kinds():
    for term in TERMS:
        with pytest.raises(UserError, match=r"'wasserstein'.*bce, least_squares, hinge"):
            term(LOGITS, "wasserstein")
