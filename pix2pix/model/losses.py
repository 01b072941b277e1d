"""Terms of the objective: adversarial on patch logits, L1 on pixels. Pure functions.

The objective is Isola et al. 2017 eq. 4: G* = arg min_G max_D L_cGAN(G, D) + λ L_L1(G).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

from pix2pix.errors import UserError


@dataclass(frozen=True)
class _Formulas:
    """The terms of one adversarial loss per logit; high logits mean "real"."""

    discriminator_real: Callable[[Tensor], Tensor]
    discriminator_fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


_FORMULAS = {
    # Isola et al. 2017, eq. 1, as cross-entropy of sigmoid(logits): -log σ(x) = softplus(-x).
    # The generator maximizes log D(x, G(x)), their section 3.3, instead of minimizing
    # log(1 - D): the gradient does not vanish where the discriminator is confident.
    "bce": _Formulas(
        discriminator_real=lambda logits: softplus(-logits),
        discriminator_fake=softplus,
        generator=lambda logits: softplus(-logits),
    ),
    # Mao et al. 2017 (LSGAN), eq. 9, without its factors 1/2.
    "least_squares": _Formulas(
        discriminator_real=lambda logits: (logits - 1).square(),
        discriminator_fake=lambda logits: logits.square(),
        generator=lambda logits: (logits - 1).square(),
    ),
    # Lim & Ye 2017 (Geometric GAN); Miyato et al. 2018, eq. 16 and 17.
    "hinge": _Formulas(
        discriminator_real=lambda logits: relu(1 - logits),
        discriminator_fake=lambda logits: relu(1 + logits),
        generator=lambda logits: -logits,
    ),
}

GAN_LOSSES = tuple(_FORMULAS)
"""Names of the adversarial losses: the `kind` of the functions below."""


def discriminator_real(logits: Tensor, kind: str) -> Tensor:
    """Return the discriminator's loss on real images: logits of any shape → float32 scalar."""
    return _formulas(kind).discriminator_real(logits.float()).mean()


def discriminator_fake(logits: Tensor, kind: str) -> Tensor:
    """Return the discriminator's loss on generated images: logits of any shape → float32 scalar."""
    return _formulas(kind).discriminator_fake(logits.float()).mean()


def generator_adversarial(logits: Tensor, kind: str) -> Tensor:
    """Return the generator's adversarial loss: logits of its images, any shape → float32 scalar."""
    return _formulas(kind).generator(logits.float()).mean()


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of two tensors of one shape as a float32 scalar.

    Isola et al. 2017 eq. 3, as the mean over pixels and channels, not the sum: λ = 100 assumes the
    mean.
    """
    return (output.float() - target.float()).abs().mean()


def _formulas(kind: str) -> _Formulas:
    # The callers convert to float32: pointwise operations keep it, also under autocast.
    if kind not in _FORMULAS:
        raise UserError(f"gan_loss {kind!r} is unknown; use one of {', '.join(GAN_LOSSES)}")
    return _FORMULAS[kind]
