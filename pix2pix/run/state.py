"""TrainState: everything that a step changes, and nothing else. A checkpoint holds exactly this."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Adam

from pix2pix.config import TrainConfig
from pix2pix.data.order import seed_of
from pix2pix.model.color import ColorSpace
from pix2pix.model.generators import encoder_of, initialize_generator, make_generator
from pix2pix.model.networks import PatchDiscriminator, initialize
from pix2pix.model.recompute import recompute

EMA_NAME = "generator_average"  # the name in checkpoints, fixed since the first version


@dataclass
class TrainState:
    """The networks and their optimizers after `step` steps, on one device.

    Each network has its own gradient scaler (enabled for fp16 only): with a shared one, an overflow
    in the discriminator applied the generator's gradient twice.

    Attributes:
        ema_generator: exponential moving average of the generator's weights and running statistics;
            it is evaluated and exported. None if `ema_decay` is 0.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: Adam
    discriminator_optimizer: Adam
    generator_scaler: GradScaler
    discriminator_scaler: GradScaler
    ema_generator: nn.Module | None
    step: int = 0

    @property
    def eval_generator(self) -> nn.Module:
        """Return the generator to evaluate: the average if there is one."""
        return self.generator if self.ema_generator is None else self.ema_generator

    @property
    def num_bytes(self) -> int:
        """Return the approximate size of a checkpoint: weights, both Adam moments, the average."""
        weights = [self.generator, self.generator, self.generator, self.discriminator]
        weights += [self.discriminator, self.discriminator]
        if self.ema_generator is not None:
            weights.append(self.ema_generator)
        return sum(p.numel() * p.element_size() for w in weights for p in w.parameters())

    def networks(self) -> dict[str, nn.Module]:
        """Return every network by its name in checkpoints."""
        named = {"generator": self.generator, "discriminator": self.discriminator}
        if self.ema_generator is not None:
            named[EMA_NAME] = self.ema_generator
        return named

    def state_dict(self) -> dict[str, Any]:
        """Return tensors (shared with the live state, not copied) and scaler numbers, by name."""
        self._forget_gradients()
        return {name: network.state_dict() for name, network in self.networks().items()} | {
            "generator_optimizer": get_optimizer_state_dict(
                self.generator, self.generator_optimizer
            ),
            "discriminator_optimizer": get_optimizer_state_dict(
                self.discriminator, self.discriminator_optimizer
            ),
            "generator_scaler": _scaler_numbers(self.generator_scaler),
            "discriminator_scaler": _scaler_numbers(self.discriminator_scaler),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`. A missing or surplus entry raises."""
        self._forget_gradients()
        for name, network in self.networks().items():
            network.load_state_dict(state[name])
        set_optimizer_state_dict(
            self.generator,
            self.generator_optimizer,
            optim_state_dict=state["generator_optimizer"],
        )
        set_optimizer_state_dict(
            self.discriminator,
            self.discriminator_optimizer,
            optim_state_dict=state["discriminator_optimizer"],
        )
        _set_scaler_numbers(self.generator_scaler, state["generator_scaler"])
        _set_scaler_numbers(self.discriminator_scaler, state["discriminator_scaler"])

    def _forget_gradients(self) -> None:
        # torch saves and loads the whole state of an optimizer only if no gradient exists and every
        # parameter is trainable; for a frozen network it silently restores nothing.
        self.generator_optimizer.zero_grad(set_to_none=True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(True)


def build_state(config: TrainConfig, device: torch.device, fp16: bool = False) -> TrainState:
    """Return the networks and optimizers that `config` describes, initialized from its seed."""
    color_space = ColorSpace(config.color_space)
    with torch.random.fork_rng(devices=[]):  # timm draws a backbone's weights from the global one
        torch.manual_seed(seed_of("encoder", config.seed))
        generator = build_generator(config)
    discriminator: nn.Module = PatchDiscriminator(
        color_space.condition_channels + color_space.output_channels,
        width=config.discriminator_width,
        norm=config.norm,
    )
    # Initialized on the CPU: the same seed gives the same weights on every device.
    random = torch.Generator().manual_seed(seed_of("weights", config.seed))
    initialize_generator(generator, random)
    initialize(discriminator, random)
    for network in (generator, discriminator):
        network.to(device).to(memory_format=torch.channels_last)
    state = TrainState(
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=_adam(generator, config),
        discriminator_optimizer=_adam(discriminator, config),
        generator_scaler=GradScaler(device.type, enabled=fp16),
        discriminator_scaler=GradScaler(device.type, enabled=fp16),
        ema_generator=_frozen_copy(generator) if config.ema_decay > 0 else None,
    )
    encoder = encoder_of(generator)
    if config.encoder_recompute and encoder is not None:
        recompute(encoder)  # of the one that trains; its average was copied before
    return state


def build_generator(config: TrainConfig) -> nn.Module:
    """Return the generator that `config` describes, on the CPU, with random weights."""
    color_space = ColorSpace(config.color_space)
    return make_generator(
        color_space.condition_channels,
        color_space.output_channels,
        image_size=config.image_size,
        width=config.generator_width,
        norm=config.norm,
        dropout=config.dropout,
        encoder=config.encoder,
        encoder_scale=config.encoder_scale,
    )


def _adam(network: nn.Module, config: TrainConfig) -> Adam:
    # Fused: one kernel per update, and it can skip an update on the device (found_inf).
    return Adam(
        _parameter_groups(network),
        lr=config.learning_rate,
        betas=(config.beta1, 0.999),
        fused=True,
    )


def _parameter_groups(network: nn.Module) -> list[dict[str, list[nn.Parameter]]]:
    """Return a group of all parameters, or for a generator on an encoder [the encoder's, the rest].

    `AdversarialStep` gives each group its own learning rate.
    """
    encoder = encoder_of(network)
    if encoder is None:
        return [{"params": [*network.parameters()]}]
    mine = {id(parameter) for parameter in encoder.parameters()}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in mine]
    return [{"params": [*encoder.parameters()]}, {"params": rest}]


def _scaler_numbers(scaler: GradScaler) -> Tensor:
    """Return the scale and the steps since its last change: [2] float64, also when disabled.

    The precision may change between starts, so every checkpoint has them.
    """
    numbers = scaler.state_dict() or GradScaler("cpu").state_dict()
    return torch.tensor([numbers["scale"], numbers["_growth_tracker"]], dtype=torch.float64)


def _set_scaler_numbers(scaler: GradScaler, numbers: Tensor) -> None:
    if scaler.is_enabled():
        scale, growth_tracker = numbers.tolist()
        changed = {"scale": scale, "_growth_tracker": int(growth_tracker)}
        scaler.load_state_dict(scaler.state_dict() | changed)


def _frozen_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False).eval()
