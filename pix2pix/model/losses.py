"""The terms of the objective: adversarial on patch logits and L1 on pixels. Pure functions.

The whole, Isola et al. 2017 eq. 4: G* = arg min_G max_D L_cGAN(G, D) + λ L_L1(G).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

from pix2pix.errors import UserError


@dataclass(frozen=True)
class _Formulas:
    """Per logit; high logits mean "real"."""

    discriminator_real: Callable[[Tensor], Tensor]
    discriminator_fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


_FORMULAS = {
    # Isola et al. 2017, eq. 1, as cross-entropy of sigmoid(logits): -log σ(x) = softplus(-x).
    # The generator maximizes log D(x, G(x)), their section 3.3, instead of minimizing
    # log(1 - D): the gradient does not vanish where the discriminator is sure.
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
    """The discriminator's term for real images: logits of any shape → scalar, float32."""
    return _formulas(kind).discriminator_real(logits.float()).mean()


def discriminator_fake(logits: Tensor, kind: str) -> Tensor:
    """The discriminator's term for generated images: logits of any shape → scalar, float32."""
    return _formulas(kind).discriminator_fake(logits.float()).mean()


def generator_adversarial(logits: Tensor, kind: str) -> Tensor:
    """The generator's adversarial term: logits of its images, any shape → scalar, float32."""
    return _formulas(kind).generator(logits.float()).mean()


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, Isola et al. 2017 eq. 3: two tensors of a shape → scalar, float32.

    The mean over pixels and channels, not their sum: λ = 100 is meant for it.
    """
    return (output.float() - target.float()).abs().mean()


def _formulas(kind: str) -> _Formulas:
    # float32 first, at the callers: pointwise operations keep it, also under autocast.
    if kind not in _FORMULAS:
        raise UserError(f"gan_loss {kind!r} is unknown; use one of {', '.join(GAN_LOSSES)}")
    return _FORMULAS[kind]
