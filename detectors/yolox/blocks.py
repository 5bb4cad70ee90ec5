"""Building blocks: convolution, normalisation and SiLU, plain or depthwise, and cross-stage stacks.

Sources: Ge et al., "YOLOX" (arXiv 2107.08430) and its published code (Apache-2.0) for the order of
the layers; Wang et al., "CSPNet" (CVPR Workshops 2020).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from dmnet.detectors.dense import pooled
from dmnet.detectors.yolov6.blocks import fold, norm

Block = Callable[[int, int, int], nn.Module]
"""``block(channels in, channels out, stride)``: a 3x3 convolution, plain or depthwise."""


class Conv(nn.Module):
    """Convolution, normalisation (none once fused), SiLU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        normed: bool = True,
    ) -> None:
        """Pad by half the kernel; a bias only without normalisation."""
        super().__init__()
        self.conv = nn.Conv2d(
            cin, cout, kernel, stride, kernel // 2, groups=groups, bias=not normed
        )
        self.norm: nn.Module = norm(cout) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h / stride, w / stride]``."""
        return functional.silu(self.norm(self.conv(x)))  # in place, training copies the input

    @torch.no_grad()
    def fused(self) -> Conv:
        """The same with the normalisation folded into the convolution."""
        if isinstance(self.norm, nn.Identity):
            return self
        assert isinstance(self.norm, BatchNorm)
        old = self.conv
        weight, bias = fold(old.weight, self.norm)
        made = Conv(
            old.in_channels,
            old.out_channels,
            old.kernel_size[0],
            old.stride[0],
            groups=old.groups,
            normed=False,
        ).to(weight.device)
        assert made.conv.bias is not None
        made.conv.weight.copy_(weight)
        made.conv.bias.copy_(bias)
        return made


def plain(cin: int, cout: int, stride: int = 1) -> nn.Module:
    """A 3x3 convolution."""
    return Conv(cin, cout, 3, stride)


def depthwise(cin: int, cout: int, stride: int = 1) -> nn.Module:
    """A 3x3 convolution a channel, then a 1x1 convolution over the channels."""
    return nn.Sequential(Conv(cin, cin, 3, stride, groups=cin), Conv(cin, cout))


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, and the shortcut around both."""

    def __init__(self, channels: int, block: Block, *, shortcut: bool) -> None:
        """Keep the channels."""
        super().__init__()
        self.first, self.second = Conv(channels, channels), block(channels, channels, 1)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        out: Tensor = self.second(self.first(x))
        return out + x if self.shortcut else out


class CspLayer(nn.Module):
    """Half of the channels goes through ``count`` bottlenecks, half around them."""

    def __init__(
        self, cin: int, cout: int, count: int, block: Block, *, shortcut: bool = True
    ) -> None:
        """Join both halves by a 1x1 convolution."""
        super().__init__()
        half = cout // 2
        self.through, self.around = Conv(cin, half), Conv(cin, half)
        self.stack = nn.Sequential(
            *(Bottleneck(half, block, shortcut=shortcut) for _ in range(count))
        )
        self.join = Conv(2 * half, cout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h, w]``."""
        through, around = self.through(x), self.around(x)
        out: Tensor = self.join(torch.cat([self.stack(through), around], 1))
        return out


class Spp(nn.Module):
    """Spatial pyramid pooling with windows of 5, 9 and 13: pools of 5 one after the other."""

    def __init__(self, channels: int) -> None:
        """Halve the channels inside."""
        super().__init__()
        self.reduce, self.join = Conv(channels, channels // 2), Conv(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        out: Tensor = self.join(pooled(self.reduce(x)))
        return out


class Focus(nn.Module):
    """2x2 pixels become channels, then a 3x3 convolution: the stem at stride 2."""

    def __init__(self, cout: int) -> None:
        """Take three channels."""
        super().__init__()
        self.conv = Conv(12, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, 3, h, w]`` -> ``[B, cout, h / 2, w / 2]``; columns vary slowest."""
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        out: Tensor = self.conv(torch.cat(corners, 1))
        return out
