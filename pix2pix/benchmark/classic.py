"""The yardstick: the training step as published, in fp32, NCHW, eager, with torch's default Adam.

Isola et al. 2017 and its published PyTorch code: Lab, batch norm, cross-entropy, λ = 100. Nothing
here is slower than it was there; inputs are floats that lie on the device already.
"""

import torch
from torch import Tensor, nn
from torch.optim import Adam

from pix2pix.model.networks import PatchDiscriminator, UNetGenerator, initialize


class ClassicStep:
    """One update of both networks per call, on a batch of noise that is made once."""

    def __init__(self, image_size: int, batch_size: int, width: int, device: torch.device) -> None:
        self.generator = UNetGenerator(1, 2, image_size, width).to(device)
        self.discriminator = PatchDiscriminator(3, width).to(device)
        for network in (self.generator, self.discriminator):
            initialize(network)
        self.generator_optimizer = _adam(self.generator)
        self.discriminator_optimizer = _adam(self.discriminator)
        shape = (batch_size, 1, image_size, image_size)
        self.condition = torch.rand(shape, device=device) * 2 - 1
        self.target = torch.rand(shape, device=device).repeat(1, 2, 1, 1) * 2 - 1

    def __call__(self) -> None:
        """Train the discriminator, then the generator."""
        fake = self.generator(self.condition)
        self.discriminator.requires_grad_(True)
        self.discriminator_optimizer.zero_grad()
        loss_fake = _cross_entropy(self.discriminator(self.condition, fake.detach()), 0.0)
        loss_real = _cross_entropy(self.discriminator(self.condition, self.target), 1.0)
        ((loss_fake + loss_real) * 0.5).backward()
        self.discriminator_optimizer.step()

        self.discriminator.requires_grad_(False)
        self.generator_optimizer.zero_grad()
        adversarial = _cross_entropy(self.discriminator(self.condition, fake), 1.0)
        l1 = nn.functional.l1_loss(fake, self.target)
        (adversarial + 100 * l1).backward()
        self.generator_optimizer.step()


def _adam(network: nn.Module) -> Adam:
    return Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    labels = torch.full_like(logits, label)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels)
