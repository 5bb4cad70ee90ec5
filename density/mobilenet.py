"""A MobileNetV2 encoder with a light decoder: a density network for the price of a nano detector.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. The encoder is
torchvision's up to its last layer at stride 16, written anew since importing torchvision takes as
long as torch; its weights fit. The layers at stride 32 cost a third of the time and see more than
an object. The decoder adds up the strides from coarse to fine, as a feature pyramid does (Lin et
al., "Feature Pyramid Networks for Object Detection", CVPR 2017).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
"""Expansion, channels, number of blocks and stride of the first one (paper, table 2)."""

LEVELS = {3: 24, 6: 32, 13: 96}
"""Index of the last encoder layer at strides 4, 8 and 16, and its channels."""

WIDTH = 64
"""Channels of the decoder."""


class MobileNet(nn.Module):
    """MobileNetV2 to stride 16, and a pyramid down to ``stride`` 4 or 8."""

    multiple = 16
    """Input sides must be multiples of this."""
    reach = 176
    """No output depends on input further away than this many pixels."""

    def __init__(self, stride: int = 4) -> None:
        """Build with random weights; the encoder is named as torchvision's ``mobilenet_v2``."""
        super().__init__()
        self.stride = stride
        self.features = _encoder()
        used = [index for index in sorted(LEVELS, reverse=True) if stride == 4 or index > 3]
        self.lateral = nn.ModuleDict({str(index): _conv(LEVELS[index], WIDTH) for index in used})
        self.smooth = nn.ModuleDict({str(index): _separable(WIDTH) for index in used})
        self.head = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` to ``(N, 1, H / stride, W / stride)``."""
        seen: dict[str, Tensor] = {}
        x = images
        for index, layer in enumerate(self.features):
            x = layer(x)
            seen[str(index)] = x
        merged: Tensor | None = None
        for name, lateral in self.lateral.items():
            level = lateral(seen[name])
            if merged is not None:
                level = level + F.interpolate(merged, scale_factor=2.0)
            merged = self.smooth[name](F.relu(level))
        density: Tensor = self.head(merged)
        return density


class Inverted(nn.Module):
    """Inverted residual: wider, a 3x3 convolution of each channel, narrower without activation."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        """Build; the input is added where the output has its shape."""
        super().__init__()
        inner = before * expansion
        wider = [_active(before, inner)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *wider, _active(inner, inner, 3, inner, stride), *_conv(inner, after)
        )
        self.added = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """``[N, before, h, w]`` -> ``[N, after, h / stride, w / stride]``."""
        y: Tensor = self.conv(x)
        return x + y if self.added else y


def _encoder() -> nn.Sequential:
    """Layers numbered and named as torchvision's ``mobilenet_v2().features``."""
    layers: list[nn.Module] = [_active(3, 32, 3, stride=2)]
    before = 32
    for expansion, after, count, stride in BLOCKS:
        for index in range(count):
            layers.append(Inverted(before, after, 1 if index else stride, expansion))
            before = after
    encoder = nn.Sequential(*layers)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return encoder


def _active(
    before: int, after: int, kernel: int = 1, groups: int = 1, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(*_conv(before, after, kernel, groups, stride), nn.ReLU6(inplace=True))


def _conv(
    before: int, after: int, kernel: int = 1, groups: int = 1, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    )


def _separable(width: int) -> nn.Sequential:
    """A 3x3 convolution of each channel, then one across the channels."""
    return nn.Sequential(
        *_conv(width, width, 3, width), nn.ReLU(inplace=True),
        *_conv(width, width), nn.ReLU(inplace=True),
    )  # fmt: skip
