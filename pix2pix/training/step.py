"""One update of discriminator and generator: the maths of the training, independent of ranks."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Adam

from pix2pix.config import TrainConfig
from pix2pix.data.batches import Batch, training_view
from pix2pix.data.order import seed_of
from pix2pix.evaluation.metrics import chroma_colorfulness
from pix2pix.model import losses
from pix2pix.model.color import ColorSpace
from pix2pix.model.generators import NO_ENCODER
from pix2pix.run.state import TrainState
from pix2pix.training.statistics import Statistics, by_dtype

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepMetrics:
    """Measurements of one step on this rank: scalar tensors on the device, not synchronized."""

    discriminator_loss: Tensor
    real_score: Tensor  # mean of D(real): a probability for bce, else the raw logit
    fake_score: Tensor  # mean of D(fake) before the discriminator's update
    generator_adversarial: Tensor
    generator_l1: Tensor
    fake_colorfulness: Tensor  # mean over photographs, of the output before the update …
    real_colorfulness: Tensor  # … and of the same true photographs
    discriminator_gradient_norm: Tensor
    generator_gradient_norm: Tensor
    skipped_updates: Tensor  # number of networks (0 to 2) whose gradient was not finite
    failed_updates: Tensor  # of these, those that a smaller fp16 loss scale cannot fix

    def stacked(self) -> Tensor:
        """Return all values as one tensor [num_metrics], for a single reduction."""
        return torch.stack([getattr(self, field.name).float() for field in fields(self)])

    @classmethod
    def names(cls) -> list[str]:
        """Return the names in the order of `stacked`."""
        return [field.name for field in fields(cls)]


class AdversarialStep:
    """Update the discriminator, then the generator (Isola et al. 2017, section 3.3).

    Args:
        config: with `total_steps` resolved.
        state: the networks and optimizers to update.
        generator: the module to call in training: the state's network, or a wrapper of it that
            averages gradients over ranks in `backward`.
        discriminator: the same for the discriminator.
        precision: "no" (fp32), "bf16" or "fp16"; the state's scalers are enabled for fp16.
        rank: only a key of the dropout seed.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainState,
        generator: nn.Module,
        discriminator: nn.Module,
        precision: str = "no",
        rank: int = 0,
    ) -> None:
        self.config = config
        self.state = state
        self.generator = generator
        self.discriminator = discriminator
        self.color_space = ColorSpace(config.color_space)
        self.dtype = PRECISIONS[precision]
        self.rank = rank

    def __call__(self, micro_batches: Sequence[Batch]) -> StepMetrics:
        """Make one step from the micro-batches of this rank, and advance `state.step`.

        If a loss or gradient is not finite on any rank, that network, its optimizer and its running
        statistics stay as they were, on every rank. No value is read back from the device.
        """
        state, config = self.state, self.config
        self._set_learning_rates()
        statistics = Statistics(state.generator)
        pairs = [
            training_view(batch, self.color_space, config.image_size) for batch in micro_batches
        ]

        fakes = self._generate_all(pairs)
        real_score, fake_score, d_loss = self._discriminator_backward(pairs, fakes)
        d_norm, d_finite, d_failed = _update(
            state.discriminator, state.discriminator_optimizer, state.discriminator_scaler
        )
        adversarial, l1 = self._generator_backward(pairs, fakes)
        fake_colorfulness = self._colorfulness(fakes)
        real_colorfulness = self._colorfulness([target for _, target in pairs])
        g_norm, g_finite, g_failed = _update(
            state.generator, state.generator_optimizer, state.generator_scaler
        )
        statistics.restore_unless(g_finite)  # one bad batch would corrupt them permanently
        self._average_generator()
        state.step += 1
        return StepMetrics(
            discriminator_loss=d_loss,
            real_score=real_score,
            fake_score=fake_score,
            generator_adversarial=adversarial,
            generator_l1=l1,
            fake_colorfulness=fake_colorfulness,
            real_colorfulness=real_colorfulness,
            discriminator_gradient_norm=d_norm,
            generator_gradient_norm=g_norm,
            skipped_updates=2 - d_finite.int() - g_finite.int(),
            failed_updates=d_failed.int() + g_failed.int(),
        )

    def _set_learning_rates(self) -> None:
        rate = self.config.learning_rate_at(self.state.step)
        for optimizer in (self.state.generator_optimizer, self.state.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate
        if self.config.encoder != NO_ENCODER:
            encoder = self.state.generator_optimizer.param_groups[0]
            encoder["lr"] = self.config.encoder_learning_rate_at(self.state.step)

    def warm_up(self, batch: Batch) -> None:
        """Make a pass whose gradients are discarded, without changing the state.

        DDP orders its buckets after the first backward, which changes the order of additions. With
        this pass before the first step, a resumed run adds in the order of an uninterrupted one.
        """
        statistics = Statistics(self.state.generator)
        pairs = [training_view(batch, self.color_space, self.config.image_size)]
        fakes = self._generate_all(pairs)
        self._discriminator_backward(pairs, fakes)
        self._generator_backward(pairs, fakes)
        for optimizer in (self.state.generator_optimizer, self.state.discriminator_optimizer):
            optimizer.zero_grad(set_to_none=True)
        statistics.restore()

    def _generate(self, condition: Tensor, micro_batch: int, generator: nn.Module) -> Tensor:
        """Return the generator's output with the dropout of (seed, step, micro-batch, rank)."""
        key = ("dropout", self.config.seed, self.state.step, micro_batch, self.rank)
        torch.manual_seed(seed_of(*key))
        with self._autocast(condition):
            output: Tensor = generator(condition)
        return output.float()

    def _generate_all(self, pairs: list["Pair"]) -> list[Tensor]:
        """Return one fake per micro-batch. Only a single one keeps its graph, to save memory."""
        if len(pairs) == 1:
            return [self._generate(pairs[0][0], 0, self.generator)]
        statistics = Statistics(self.state.generator)
        with torch.no_grad():
            fakes = [
                self._generate(condition, index, self.state.generator)
                for index, (condition, _) in enumerate(pairs)
            ]
        statistics.restore()  # only the pass with gradients may update statistics
        return fakes

    def _discriminator_backward(
        self, pairs: list["Pair"], fakes: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the discriminator's gradients.

        Real and fake are two forward passes, each with its own backward: their batch statistics
        stay separate, as published, and DDP never sees two passes before one backward.

        Returns:
            The means of D(real), of D(fake) and of the loss.
        """
        kind, scaler = self.config.gan_loss, self.state.discriminator_scaler
        self.state.discriminator.requires_grad_(True)
        total = torch.zeros(3, device=fakes[0].device)
        for index, ((condition, target), fake) in enumerate(zip(pairs, fakes, strict=True)):
            with _local_gradients(self.discriminator):
                real_logits = self._judge(self.discriminator, condition, target)
                real_loss = losses.discriminator_real(real_logits, kind) / (2 * len(pairs))
                _backward(real_loss, scaler)
            last = index == len(pairs) - 1
            with contextlib.nullcontext() if last else _local_gradients(self.discriminator):
                fake_logits = self._judge(self.discriminator, condition, fake.detach())
                fake_loss = losses.discriminator_fake(fake_logits, kind) / (2 * len(pairs))
                _backward(fake_loss, scaler)
            scores = [self._score(real_logits), self._score(fake_logits)]
            total += torch.stack([*scores, (real_loss + fake_loss).detach() * len(pairs)])
        real_score, fake_score, loss = total / len(pairs)
        return real_score, fake_score, loss

    def _generator_backward(
        self, pairs: list["Pair"], fakes: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the generator's gradients; return the means of its adversarial and L1 terms."""
        kind, scaler = self.config.gan_loss, self.state.generator_scaler
        # Frozen: the discriminator's gradients would be computed only to be discarded.
        self.state.discriminator.requires_grad_(False)
        total = torch.zeros(2, device=fakes[0].device)
        for index, (condition, target) in enumerate(pairs):
            last = index == len(pairs) - 1
            with contextlib.nullcontext() if last else _local_gradients(self.generator):
                alone = len(pairs) == 1
                fake = fakes[0] if alone else self._generate(condition, index, self.generator)
                # Without the wrapper, which has nothing to reduce for a frozen network.
                logits = self._judge(self.state.discriminator, condition, fake)
                adversarial = losses.generator_adversarial(logits, kind)
                l1 = losses.l1(fake, target)
                loss = (adversarial + self.config.l1_weight * l1) / len(pairs)
                _backward(loss, scaler)
            total += torch.stack([adversarial.detach(), l1.detach()])
        self.state.discriminator.requires_grad_(True)
        adversarial, l1 = total / len(pairs)
        return adversarial, l1

    def _judge(self, discriminator: nn.Module, condition: Tensor, image: Tensor) -> Tensor:
        with self._autocast(condition):
            logits: Tensor = discriminator(condition, image)
        return logits.float()

    def _score(self, logits: Tensor) -> Tensor:
        logits = logits.detach()
        return (logits.sigmoid() if self.config.gan_loss == "bce" else logits).mean()

    @torch.no_grad()
    def _colorfulness(self, images: list[Tensor]) -> Tensor:
        """Return the mean over the photographs of all micro-batches."""
        chroma = torch.cat([self.color_space.chroma(image) for image in images])
        return chroma_colorfulness(chroma).mean()

    def _autocast(self, like: Tensor) -> torch.autocast:
        # A new context for each forward: its cache of cast weights must not outlive an update.
        return torch.autocast(like.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    @torch.no_grad()
    def _average_generator(self) -> None:
        average = self.state.ema_generator
        if average is None:
            return
        weight = 1 - self.config.ema_decay_at(self.state.step)
        torch._foreach_lerp_(
            list(average.parameters()), list(self.state.generator.parameters()), weight
        )
        means, buffers = by_dtype(average), by_dtype(self.state.generator)
        for dtype in means:
            if dtype.is_floating_point:
                torch._foreach_lerp_(means[dtype], buffers[dtype], weight)
            else:
                torch._foreach_copy_(means[dtype], buffers[dtype])


Pair = tuple[Tensor, Tensor]  # condition [B, Cin, S, S] and target [B, Cout, S, S], in [-1, 1]


def _backward(loss: Tensor, scaler: GradScaler) -> None:
    # An infinite loss may have finite gradients. Making them all NaN informs every rank at no cost,
    # because gradients are averaged anyway.
    scaler.scale(loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)).backward()


def _update(
    network: nn.Module, optimizer: Adam, scaler: GradScaler
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply the gradients unless one is not finite.

    Returns:
        Their norm, whether it is finite, and whether the update failed: not finite with a loss
        scale of at most 1. With a larger scale fp16 is only searching for its scale.
    """
    scale = scaler.scale(torch.ones((), device=next(network.parameters()).device))
    scaler.unscale_(optimizer)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    finite = torch.isfinite(norm)
    # The fused kernel reads this on the device, so the decision needs no synchronization. The
    # gradient is already averaged over ranks, so every rank decides the same.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm, finite, ~finite & (scale <= 1)


def _local_gradients(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return a context in which backward accumulates gradients without averaging over ranks."""
    no_sync = getattr(module, "no_sync", contextlib.nullcontext)
    context: contextlib.AbstractContextManager[None] = no_sync()
    return context
