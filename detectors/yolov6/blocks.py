"""Building blocks: convolutions that can be re-parameterised, and what is stacked from them.

RepVGG (Ding et al. 2021) trains three branches and deploys one 3x3 convolution. Every block here
that has parameters knows its deployed form: ``fused()`` gives a `Conv` without normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # SyncBatchNorm is one too

from dmnet.detectors.dense import pooled

Activation = Literal["relu", "silu", "none"]
Block = Callable[[int, int, int], nn.Module]
"""``block(channels in, channels out, stride)``: a 3x3 convolution in one form or another."""

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "none": nn.Identity,
}


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation.

    Momentum 0.1: the published 0.03 suits 300 epochs, but after a hundred steps its running
    statistics still lag so far behind that a network that has learnt everything finds nothing.
    """
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def fold(weight: Tensor, bn: BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does the same as ``weight`` followed by ``bn``."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    return weight * scale[:, None, None, None], bn.bias - bn.running_mean * scale


class Conv(nn.Module):
    """Convolution, normalisation (none once fused), activation."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        stride: int = 1,
        act: Activation = "relu",
        *,
        normed: bool = True,
    ) -> None:
        """Pad by half the kernel; a bias only without normalisation."""
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=not normed)
        self.norm: nn.Module = norm(cout) if normed else nn.Identity()
        self.kind: Activation = act
        self.act = _ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h / stride, w / stride]``."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out

    def fused(self) -> Conv:
        """The same with the normalisation folded into the convolution."""
        if isinstance(self.norm, nn.Identity):
            return self
        assert isinstance(self.norm, BatchNorm)
        return from_kernel(*fold(self.conv.weight, self.norm), self.conv.stride[0], self.kind)


@torch.no_grad()
def from_kernel(weight: Tensor, bias: Tensor, stride: int, act: Activation) -> Conv:
    """A fused `Conv` with this kernel and bias."""
    cout, cin, kernel, _ = weight.shape
    made = Conv(cin, cout, kernel, stride, act, normed=False).to(weight.device)
    assert made.conv.bias is not None
    made.conv.weight.copy_(weight)
    made.conv.bias.copy_(bias)
    return made


def identity_kernel(channels: int, like: Tensor) -> Tensor:
    """The 3x3 kernel that changes nothing, ``[channels, channels, 3, 3]``."""
    kernel = like.new_zeros(channels, channels, 3, 3)
    index = torch.arange(channels)
    kernel[index, index, 1, 1] = 1.0
    return kernel


class RepVGG(nn.Module):
    """3x3, 1x1 and identity branch, each normalised, added, ReLU.

    The identity branch exists where shape is kept. Source: Ding et al., "RepVGG" (CVPR 2021).

    The 1x1 branch has every ``stride``-th pixel picked before: the backward pass of a strided 1x1
    convolution of 3 channels in channels-last order crashes on a CPU (torch 2.15). A pool of one
    pixel picks: the gradient of a slice has another memory order, which slows down what follows.
    """

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        """Make the branches."""
        super().__init__()
        self.wide = Conv(cin, cout, 3, stride, "none")
        self.point, self.stride = Conv(cin, cout, 1, 1, "none"), stride
        self.identity = norm(cout) if cin == cout and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h / stride, w / stride]``."""
        picked = functional.avg_pool2d(x, 1, self.stride) if self.stride > 1 else x
        out: Tensor = self.wide(x) + self.point(picked)
        if self.identity is not None:
            out = out + self.identity(x)
        return functional.relu(out)

    def fused(self) -> Conv:
        """One 3x3 convolution and ReLU."""
        wide, point = self.wide.fused().conv, self.point.fused().conv
        assert wide.bias is not None and point.bias is not None
        weight = wide.weight + functional.pad(point.weight, (1, 1, 1, 1))
        bias = wide.bias + point.bias
        if self.identity is not None:
            kernel = identity_kernel(len(bias), weight)
            extra, shift = fold(kernel, self.identity)
            weight, bias = weight + extra, bias + shift
        return from_kernel(weight, bias, self.wide.conv.stride[0], "relu")


def conv_relu(cin: int, cout: int, stride: int = 1) -> Conv:
    """Plain 3x3 convolution with ReLU: what RepVGG becomes."""
    return Conv(cin, cout, 3, stride, "relu")


def conv_silu(cin: int, cout: int, stride: int = 1) -> Conv:
    """Plain 3x3 convolution with SiLU, as in YOLOv6-L."""
    return Conv(cin, cout, 3, stride, "silu")


class BottleRep(nn.Module):
    """Two 3x3 blocks and a shortcut with a learnt factor; the sub-block of `CspStackRep`."""

    def __init__(self, channels: int, block: Block) -> None:
        """Make both blocks."""
        super().__init__()
        self.first, self.second = block(channels, channels, 1), block(channels, channels, 1)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        out: Tensor = self.second(self.first(x)) + self.alpha * x
        return out


def rep_stack(cin: int, cout: int, count: int, block: Block) -> nn.Sequential:
    """``count`` 3x3 blocks in a row; the first changes the channels (RepBlock of the paper)."""
    rest = [block(cout, cout, 1) for _ in range(count - 1)]
    return nn.Sequential(block(cin, cout, 1), *rest)


class CspStackRep(nn.Module):
    """Cross-stage partial block around a stack of `BottleRep` (paper, figure 3c)."""

    def __init__(
        self, cin: int, cout: int, count: int, ratio: float, block: Block, act: Activation
    ) -> None:
        """``count`` 3x3 blocks make ``count // 2`` sub-blocks; ``ratio`` is the hidden share."""
        super().__init__()
        hidden = int(cout * ratio)
        self.left, self.right = Conv(cin, hidden, act=act), Conv(cin, hidden, act=act)
        self.join = Conv(2 * hidden, cout, act=act)
        self.stack = nn.Sequential(*(BottleRep(hidden, block) for _ in range(max(1, count // 2))))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h, w]``."""
        out: Tensor = self.join(torch.cat([self.stack(self.left(x)), self.right(x)], 1))
        return out


class Sppf(nn.Module):
    """Spatial pyramid pooling, fast: three 5x5 max-pools in a row, all joined.

    With ReLU this is SimSPPF.
    """

    def __init__(self, cin: int, cout: int, act: Activation = "relu") -> None:
        """Halve the channels inside."""
        super().__init__()
        self.reduce, self.join = Conv(cin, cin // 2, act=act), Conv(cin * 2, cout, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h, w]``."""
        out: Tensor = self.join(pooled(self.reduce(x)))
        return out


class CspSppf(nn.Module):
    """`Sppf` with convolutions before and after, and a branch around it (YOLOv6 3.0)."""

    def __init__(self, cin: int, cout: int, act: Activation = "relu") -> None:
        """Halve the channels inside."""
        super().__init__()
        half = cout // 2
        self.around = Conv(cin, half, act=act)
        self.before = nn.Sequential(
            Conv(cin, half, act=act), Conv(half, half, 3, act=act), Conv(half, half, act=act)
        )
        self.after = nn.Sequential(Conv(4 * half, half, act=act), Conv(half, half, 3, act=act))
        self.join = Conv(2 * half, cout, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h, w]``."""
        within = self.after(pooled(self.before(x)))
        out: Tensor = self.join(torch.cat([self.around(x), within], 1))
        return out
