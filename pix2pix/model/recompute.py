"""Recomputation: a network's activations are computed again in backward, instead of being kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". To the same bits: what is
computed again sees the same input, and the running statistics of a norm move once, not twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from pix2pix.errors import UserError


def recompute(network: nn.Module) -> None:
    """Keep only what each block of `network` gets, from now on; see `blocks_of`.

    Raises UserError where it has no such blocks, and nothing would be saved.
    """
    blocks = list(blocks_of(network))
    if not blocks:
        raise UserError(
            "--encoder_recompute would save nothing: this encoder has no blocks in a sequence; "
            "leave it out, or take another --encoder, such as efficientnet_lite0"
        )
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """Return the outermost modules of several layers that follow each other in a sequence."""
    for child in network.children():
        if isinstance(network, nn.Sequential) and not isinstance(child, nn.Sequential):
            if any(child.children()):
                yield child
        else:
            yield from blocks_of(child)


def _recomputed(block: nn.Module, forward: Any, x: Tensor) -> Tensor:
    contexts = partial(_contexts, block)
    result: Tensor = checkpoint(forward, x, use_reentrant=False, context_fn=contexts)
    return result


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """Return the contexts of the first pass and of the second."""
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Let the norms of `block` move copies of their running statistics."""
    norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    statistics = [(norm, dict(norm.named_buffers())) for norm in norms]
    for norm, buffers in statistics:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in statistics:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
