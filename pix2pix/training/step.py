"""One discriminator + generator update: the maths of the training. It knows no ranks."""

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
from pix2pix.run.state import TrainState

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepMetrics:
    """What one step measured on this rank: scalar tensors on the device, not yet synchronized."""

    discriminator_loss: Tensor
    real_score: Tensor  # mean of D(real): a probability for bce, else the raw logit
    fake_score: Tensor  # mean of D(fake) before the discriminator's update
    generator_adversarial: Tensor
    generator_l1: Tensor
    fake_colorfulness: Tensor  # mean over photographs, of what was painted before the update …
    real_colorfulness: Tensor  # … and of the same photographs in truth
    discriminator_gradient_norm: Tensor
    generator_gradient_norm: Tensor
    skipped_updates: Tensor  # 0, 1 or 2 networks had a gradient that was not finite
    failed_updates: Tensor  # of these, those that a smaller fp16 loss scale can't help

    def stacked(self) -> Tensor:
        """All values as one tensor [num_metrics], so that one reduction serves them all."""
        return torch.stack([getattr(self, field.name).float() for field in fields(self)])

    @classmethod
    def names(cls) -> list[str]:
        """Names in the order of `stacked`."""
        return [field.name for field in fields(cls)]


class AdversarialStep:
    """Updates the discriminator, then the generator (Isola et al. 2017, section 3.3).

    generator, discriminator: the modules to call in training; the state's own networks, or
        wrappers of them that average gradients over ranks in `backward`.
    precision: "no" (fp32), "bf16" or "fp16"; the state's scalers are enabled for fp16.
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
        self.rank = rank  # only a key of the dropout seed

    def __call__(self, micro_batches: Sequence[Batch]) -> StepMetrics:
        """One step from the micro-batches of this rank; advances `state.step`.

        A loss or gradient that is not finite, on any rank, leaves that network, its optimizer and
        its running statistics as they were, on every rank. No value is read back from the device.
        """
        state, config = self.state, self.config
        for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(state.step)
        statistics = [buffer.clone() for buffer in state.generator.buffers()]
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
        for buffer, before in zip(state.generator.buffers(), statistics, strict=True):
            # One bad batch would poison running statistics for good.
            buffer.copy_(torch.where(g_finite, buffer, before))
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

    def warm_up(self, batch: Batch) -> None:
        """A pass whose gradients are thrown away; the state stays as it is.

        DDP orders its buckets after the first backward, which changes the order of additions.
        Done before the first step, a resumed run adds in the same order as an uninterrupted one.
        """
        statistics = [buffer.clone() for buffer in self.state.generator.buffers()]
        pairs = [training_view(batch, self.color_space, self.config.image_size)]
        fakes = self._generate_all(pairs)
        self._discriminator_backward(pairs, fakes)
        self._generator_backward(pairs, fakes)
        for optimizer in (self.state.generator_optimizer, self.state.discriminator_optimizer):
            optimizer.zero_grad(set_to_none=True)
        for buffer, before in zip(self.state.generator.buffers(), statistics, strict=True):
            buffer.copy_(before)

    def _generate(self, condition: Tensor, micro_batch: int, generator: nn.Module) -> Tensor:
        """The generator's output with the dropout of (seed, step, micro-batch, rank)."""
        key = ("dropout", self.config.seed, self.state.step, micro_batch, self.rank)
        torch.manual_seed(seed_of(*key))
        with self._autocast(condition):
            output: Tensor = generator(condition)
        return output.float()

    def _generate_all(self, pairs: list["Pair"]) -> list[Tensor]:
        """Return a fake per micro-batch, with its graph only if there is one: memory of one."""
        if len(pairs) == 1:
            return [self._generate(pairs[0][0], 0, self.generator)]
        statistics = [buffer.clone() for buffer in self.state.generator.buffers()]
        with torch.no_grad():
            fakes = [
                self._generate(condition, index, self.state.generator)
                for index, (condition, _) in enumerate(pairs)
            ]
        for buffer, before in zip(self.state.generator.buffers(), statistics, strict=True):
            buffer.copy_(before)  # the pass with gradients is the one that counts
        return fakes

    def _discriminator_backward(
        self, pairs: list["Pair"], fakes: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the discriminator; returns means of D(real), D(fake) and its loss.

        Real and fake are two forward passes, each with its own backward: their batch statistics
        stay apart, as published, and DDP never sees two passes before one backward.
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
        """Gradients of the generator; returns means of its adversarial and L1 terms."""
        kind, scaler = self.config.gan_loss, self.state.generator_scaler
        # Frozen: no gradient of the discriminator is computed only to be thrown away.
        self.state.discriminator.requires_grad_(False)
        total = torch.zeros(2, device=fakes[0].device)
        for index, (condition, target) in enumerate(pairs):
            last = index == len(pairs) - 1
            with contextlib.nullcontext() if last else _local_gradients(self.generator):
                alone = len(pairs) == 1
                fake = fakes[0] if alone else self._generate(condition, index, self.generator)
                # Not through a wrapper: it has nothing to reduce for a frozen network.
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
        """Mean over the photographs of every micro-batch."""
        chroma = torch.cat([self.color_space.chroma(image) for image in images])
        return chroma_colorfulness(chroma).mean()

    def _autocast(self, like: Tensor) -> torch.autocast:
        # Entered anew for each forward: its cache of cast weights must not outlive an update.
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
        for mean, buffer in zip(average.buffers(), self.state.generator.buffers(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(buffer, weight)
            else:
                mean.copy_(buffer)


Pair = tuple[Tensor, Tensor]  # condition [B, Cin, S, S] and target [B, Cout, S, S], in [-1, 1]


def _backward(loss: Tensor, scaler: GradScaler) -> None:
    # An infinite loss may have finite gradients. NaN in them all tells every rank, at no cost: they
    # are averaged anyway.
    scaler.scale(loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)).backward()


def _update(
    network: nn.Module, optimizer: Adam, scaler: GradScaler
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply the gradients unless one is not finite.

    Returns their norm, whether it is finite, and whether it failed: not finite although the loss
    scale is down to 1. Above that, fp16 is only looking for its scale.
    """
    scale = scaler.scale(torch.ones((), device=next(network.parameters()).device))
    scaler.unscale_(optimizer)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    finite = torch.isfinite(norm)
    # Read by the fused kernel on the device: no synchronization decides about the update. The
    # gradient is already averaged over ranks, so every rank decides alike.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm, finite, ~finite & (scale <= 1)


def _local_gradients(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Inside, backward adds to this rank's gradients without averaging them yet."""
    no_sync = getattr(module, "no_sync", contextlib.nullcontext)
    context: contextlib.AbstractContextManager[None] = no_sync()
    return context
