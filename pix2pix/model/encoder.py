"""A generator on an encoder that has seen ImageNet: a backbone of timm, and a decoder.

Skip connections as in the U-Net (Ronneberger et al. 2015). The decoder enlarges by interpolation
before its convolutions, which leaves no checkerboard (Odena et al. 2016, "Deconvolution and
Checkerboard Artifacts").
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from pix2pix.cli.options import suggestion
from pix2pix.errors import UserError
from pix2pix.model.networks import normalization

# Channels at width 64, from the deepest level (1/16 of the sides) to full resolution. The wider
# 192, 128, 64, 48, 32 of a first trial takes 1.8 times as long.
DECODER_CHANNELS = (128, 96, 48, 32, 16)
STRIDES = ([2, 4, 8, 16, 32], [4, 8, 16, 32])
DROPOUT_BLOCKS = 2

# Batch norm's epsilon belongs to the weights. Those of the lite networks come from TensorFlow.
BATCH_NORM_EPSILON = {f"efficientnet_lite{size}": 1e-3 for size in range(5)}


class EncoderGenerator(nn.Module):
    """A backbone of timm, its features joined into a decoder at every level.

    gray ─┬─ stride 2 ─ 4 ─ 8 ─ 16 ─ 32          Each up-block halves the channels (1×1), doubles
          │     │       │   │    │    │          the sides, joins the skip and convolves twice.
     output ── up ──── up ─ up ─ up ──┘          The gray itself is the last skip.

    encoder: name of the backbone. image_size: of the training, which the backbone must take.
    scale: the backbone sees the picture so many times as large, and the decoder the means of its
        features. It knows things by the size at which it has learned them, 224 px.
    mean, std: [1, 3, 1, 1], by which its weights want a picture in [0, 1] normalized; buffers, so
        that a checkpoint carries them.
    Raises UserError where timm is missing, or has no such backbone that a decoder can use.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        encoder: str,
        image_size: int = 256,
        width: int = 64,
        norm: str = "batch",
        dropout: bool = True,
        scale: int = 1,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.encoder = create_backbone(encoder)
        check_features(self.encoder, encoder, image_size * scale)
        for module in self.encoder.modules():
            if type(module) is nn.Conv2d and module.groups > 1:
                module.__class__ = _GroupedConv2d
        if norm == "sync_batch":
            self.encoder = nn.SyncBatchNorm.convert_sync_batchnorm(self.encoder)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.5))
        channels, strides = feature_levels(self.encoder)
        widths = [max(1, round(count * width / 64)) for count in DECODER_CHANNELS]
        # A backbone that begins at stride 4 has no features at 2: two convolutions of the gray.
        self.stem = None if strides[0] == 2 else _stem(in_channels, widths[-2], norm)
        skips = [in_channels, *([] if self.stem is None else [widths[-2]]), *channels[:-1]]
        below = channels[-1]
        self.up = nn.ModuleList()
        for index, (wide, skip) in enumerate(zip(widths, reversed(skips), strict=True)):
            self.up.append(_Up(below, skip, wide, norm, dropout and index < DROPOUT_BLOCKS))
            below = wide
        self.output = nn.Sequential(nn.Conv2d(below, out_channels, 3, padding=1), nn.Tanh())

    def forward(self, condition: Tensor) -> Tensor:
        """Color a batch.

        condition: [B, in_channels, H, W] in [-1, 1]; H and W are multiples of 32. Returns
        [B, out_channels, H, W] in [-1, 1].
        """
        features = self._features((condition.mean(dim=1, keepdim=True) + 1) / 2)
        skips = [condition, *([] if self.stem is None else [self.stem(condition)]), *features[:-1]]
        x = features[-1]
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        output: Tensor = self.output(x)
        return output

    def _features(self, gray: Tensor) -> list[Tensor]:
        """Return the backbone's features of a picture [B, 1, H, W] in [0, 1], at their strides."""
        if self.scale > 1:
            scale = float(self.scale)
            gray = interpolate(gray, scale_factor=scale, mode="bilinear", align_corners=False)
        features: list[Tensor] = self.encoder((gray - self.mean) / self.std)
        return features if self.scale == 1 else [avg_pool2d(f, self.scale) for f in features]


class _GroupedConv2d(nn.Conv2d):
    """Convolve in fp32 on a CPU, also under autocast; the result is of the input's type.

    oneDNN has no fast backward in bf16 for most depthwise convolutions: with a kernel of 5 or a
    stride of 2 it takes 3 to 9 times as long as in fp32.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


class _Up(nn.Module):
    """Half the channels, twice the sides, the skip, two convolutions."""

    def __init__(self, below: int, skip: int, channels: int, norm: str, dropout: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(below, channels, 1)  # before enlarging: a quarter of the work
        self.convolve = nn.Sequential(
            *_conv(channels + skip, channels, norm), *_conv(channels, channels, norm)
        )
        self.dropout = nn.Dropout(0.5) if dropout else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = interpolate(self.reduce(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        joined: Tensor = self.dropout(self.convolve(torch.cat([x, skip], dim=1)))
        return joined


def create_backbone(name: str, **options: Any) -> nn.Module:
    """Return the backbone `name` of timm, which gives its features by stride; random weights.

    options: more of `timm.create_model`, such as `pretrained`. Raises UserError where timm is
    missing, does not know the name, or cannot give the features of the backbone.
    """
    timm = require_timm()
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        hint = suggestion(name, known) or "; `python -c 'import timm; print(*timm.list_models())'`"
        raise UserError(f"encoder {name} is no model of timm{hint}")
    epsilon = BATCH_NORM_EPSILON.get(name.partition(".")[0])
    if epsilon is not None:
        options["bn_eps"] = epsilon
    try:
        backbone: nn.Module = timm.create_model(name, features_only=True, **options)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise UserError(
            f"encoder {name} gives no features by stride ({_first_line(error)}); "
            "efficientnet_lite0, resnet34 and convnext_tiny do"
        ) from error
    return backbone


def feature_levels(backbone: nn.Module) -> tuple[list[int], list[int]]:
    """Return the channels and the strides of a backbone's features, the finest first."""
    info: Any = backbone.feature_info
    return list(info.channels()), list(info.reduction())


def check_features(backbone: nn.Module, name: str, image_size: int) -> None:
    """Raise UserError unless the backbone's features are maps of strides 2 or 4 to 32."""
    channels, strides = feature_levels(backbone)
    if strides not in STRIDES:
        raise UserError(
            f"encoder {name} has features of strides {', '.join(map(str, strides))}; the decoder "
            "needs 2, 4, 8, 16, 32 or 4, 8, 16, 32, as efficientnet_lite0 has them"
        )
    device = next(backbone.parameters()).device
    try:
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"encoder {name} does not take pictures of {image_size} px ({_first_line(error)}); "
            "choose another, such as efficientnet_lite0"
        ) from error
    finally:
        backbone.train()
    wanted = [
        (1, c, image_size // s, image_size // s) for c, s in zip(channels, strides, strict=True)
    ]
    if [tuple(feature.shape) for feature in features] != wanted:
        raise UserError(
            f"encoder {name} gives features that are no maps [B, C, H, W]; choose another, such as "
            "efficientnet_lite0"
        )


def require_timm() -> Any:
    """Return the package timm. Raises UserError, saying how to install it, where it is missing."""
    try:
        import timm  # two seconds: only where an encoder is asked for
    except ImportError:
        raise UserError(
            "an encoder needs the package timm: pip install timm, or pip install -e '.[pretrained]'"
        ) from None
    return timm


def _stem(in_channels: int, channels: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        *_conv(in_channels, channels, norm, stride=2), *_conv(channels, channels, norm)
    )


def _conv(in_channels: int, channels: int, norm: str, stride: int = 1) -> Sequence[nn.Module]:
    convolution = nn.Conv2d(
        in_channels, channels, 3, stride=stride, padding=1, bias=norm == "instance"
    )
    return convolution, normalization(channels, norm), nn.ReLU(inplace=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
