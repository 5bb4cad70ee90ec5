"""RepOptimizer: the gradient is re-parameterised instead of the network.

RepVGG's branches blow up the spread of the fused weights, which 8-bit weights do not forgive. Ding
et al., "Re-parameterizing Your Optimizers rather than Architectures" (ICLR 2023), train the plain
3x3 network and multiply its gradients, element by element, so that every step is the one that the
branches would have taken. In two runs:

1. ``search``: `LinearAdd` blocks, whose branches have trainable scales, are trained for a while;
2. ``repopt``: `RepOptConv` blocks get the gradient multipliers that those scales imply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmnet.core.errors import ConfigError
from dmnet.detectors.yolov6.blocks import Conv, fold, from_kernel, identity_kernel, norm


class LinearAdd(nn.Module):
    """Scaled 3x3, 1x1 and identity branch, added, then normalised, ReLU: the search block."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        """Scales start at 1."""
        super().__init__()
        self.wide = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.point = nn.Conv2d(cin, cout, 1, stride, bias=False)
        self.wide_scale = nn.Parameter(torch.ones(cout))
        self.point_scale = nn.Parameter(torch.ones(cout))
        kept = cin == cout and stride == 1
        self.identity_scale = nn.Parameter(torch.ones(cout)) if kept else None
        self.norm = norm(cout)

    def kernel(self) -> Tensor:
        """The 3x3 kernel that all branches together amount to."""
        point = functional.pad(self.point.weight, (1, 1, 1, 1))
        total = (
            self.wide.weight * self.wide_scale[:, None, None, None]
            + point * self.point_scale[:, None, None, None]
        )
        if self.identity_scale is not None:
            eye = identity_kernel(len(total), total)
            total = total + eye * self.identity_scale[:, None, None, None]
        return total

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h / stride, w / stride]``."""
        out = functional.conv2d(x, self.kernel(), None, self.wide.stride, 1)
        return functional.relu(self.norm(out))

    def fused(self) -> Conv:
        """One 3x3 convolution and ReLU."""
        return from_kernel(*fold(self.kernel(), self.norm), self.wide.stride[0], "relu")


@torch.no_grad()
def gradient_multiplier(block: LinearAdd) -> Tensor:
    """What the plain kernel's gradient is multiplied by, ``[cout, cin, 3, 3]`` (equation 4).

    A branch of constant scale s moves the sum of branches by s squared times the gradient: s1^2
    everywhere, + s2^2 in the middle, + 1 in the middle of the diagonal for the identity.
    """
    wide = block.wide_scale.square()[:, None, None, None]
    multiplier = wide.expand_as(block.wide.weight).clone()
    multiplier[:, :, 1, 1] += block.point_scale.square()[:, None]
    if block.identity_scale is not None:
        multiplier += identity_kernel(len(multiplier), multiplier)
    return multiplier


class _MultiplyGradient(torch.autograd.Function):
    """Passes a weight on, and its gradient back multiplied."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, multiplier: Tensor) -> Tensor:
        ctx.save_for_backward(multiplier)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (multiplier,) = ctx.saved_tensors
        return gradient * multiplier, None


class RepOptConv(nn.Module):
    """A plain 3x3 convolution, normalisation, ReLU, whose gradient is multiplied.

    Until `adopt` sets them the multipliers are 1.
    """

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        """Any optimizer can train it (with SGD every step is exactly that of the branches)."""
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.norm = norm(cout)
        self.multiplier: Tensor
        self.register_buffer("multiplier", torch.ones_like(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h / stride, w / stride]``."""
        weight: Tensor = _MultiplyGradient.apply(self.conv.weight, self.multiplier)
        out = functional.conv2d(x, weight, None, self.conv.stride, 1)
        return functional.relu(self.norm(out))

    @torch.no_grad()
    def adopt(self, block: LinearAdd) -> None:
        """Start from the search block's kernel (re-initialised or trained) and multipliers."""
        self.conv.weight.copy_(block.kernel())
        self.multiplier.copy_(gradient_multiplier(block))

    def fused(self) -> Conv:
        """One 3x3 convolution and ReLU."""
        return from_kernel(*fold(self.conv.weight, self.norm), self.conv.stride[0], "relu")


@torch.no_grad()
def adopt_scales(plain: nn.Module, searched: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a ``repopt`` network the scales that a ``search`` training found.

    The kernels are drawn anew, as branches with those scales would start.

    Args:
        plain: the network with `RepOptConv` blocks, changed in place.
        searched: a freshly initialised ``search`` network of the same size.
        state: the state_dict of the trained search network.

    Raises:
        ConfigError: the state holds no scales of these blocks.
    """
    blocks = dict(searched.named_modules())
    for name, block in plain.named_modules():
        if not isinstance(block, RepOptConv):
            continue
        source = blocks[name]
        assert isinstance(source, LinearAdd)
        for scale in ("wide_scale", "point_scale", "identity_scale"):
            own, key = getattr(source, scale), f"{name}.{scale}"
            if own is None:
                continue
            if key not in state or state[key].shape != own.shape:
                raise ConfigError(
                    f"scales: no '{key}' of {len(own)} values; give weights of the same size that "
                    "were trained with form 'search'"
                )
            own.copy_(state[key])
        block.adopt(source)
