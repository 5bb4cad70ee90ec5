"""A MobileNetV2 encoder with a light decoder: a density network for the price of a nano detector.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. The encoder is
torchvision's up to its last layer at stride 16; the layers at stride 32 cost a third of the time
and see more than an object. The decoder adds up the strides from coarse to fine, as a feature
pyramid does (Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

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
        self.features = mobilenet_v2(weights=None).features[: max(LEVELS) + 1]
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


def _conv(before: int, after: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    )


def _separable(width: int) -> nn.Sequential:
    """A 3x3 convolution of each channel, then one across the channels."""
    return nn.Sequential(
        *_conv(width, width, 3, width), nn.ReLU(inplace=True),
        *_conv(width, width), nn.ReLU(inplace=True),
    )  # fmt: skip
