"""8-bit weights and activations, simulated: post-training and quantisation-aware.

A fused network's convolutions become `QuantConv`: input rounded to 256 levels a tensor, weights to
255 a channel. Post-training quantisation observes the inputs' ranges on some images and leaves the
layers that harm most in floating point (paper, section 3.6: partial quantisation by sensitivity).
Quantisation-aware training then trains the rounded network (straight-through gradients), taught by
the floating-point one channel by channel. `int8` runs the result on integer kernels.

The simulation uses torch's fake-quantisation operators. ``torch.ao.quantization`` still imports in
torch 2.15, but is marked deprecated, and torchao's successor needs a C++ compiler where it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dmnet.core.errors import ConfigError
from dmnet.detectors.yolov6.blocks import Conv

LEVELS = 255
"""Greatest 8-bit activation; weights go from -127 to 127."""


class QuantConv(nn.Module):
    """A fused `Conv` whose input and weights are rounded to 8 bits once it is active."""

    def __init__(self, inner: Conv) -> None:
        """Start with an empty range, inactive."""
        super().__init__()
        self.inner = inner
        self.observing = False
        self.low: Tensor
        self.high: Tensor
        self.active: Tensor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("active", torch.tensor(False))

    def levels(self) -> tuple[Tensor, Tensor]:
        """Width of a level and the level of zero, of the input."""
        scale = ((self.high - self.low) / LEVELS).clamp(min=1e-8)
        return scale, (-self.low / scale).round().to(torch.int32)

    def weight_scale(self) -> Tensor:
        """Width of a level of each output channel's weights, ``[cout]``."""
        return self.inner.conv.weight.detach().abs().amax((1, 2, 3)).clamp(min=1e-8) / 127

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` -> ``[B, cout, h / stride, w / stride]``."""
        if self.observing:
            self.low = torch.minimum(self.low, x.detach().amin())
            self.high = torch.maximum(self.high, x.detach().amax())
        if not self.active:
            out: Tensor = self.inner(x)
            return out
        conv = self.inner.conv
        scale, zero = self.levels()
        rounded = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, LEVELS)
        step = self.weight_scale()
        weight = torch.fake_quantize_per_channel_affine(
            conv.weight, step, torch.zeros_like(step, dtype=torch.int32), 0, -127, 127
        )
        out = self.inner.act(conv._conv_forward(rounded, weight, conv.bias))
        return out


def quant_convs(module: nn.Module) -> dict[str, QuantConv]:
    """All `QuantConv` by name, in the order they were made."""
    return {n: m for n, m in module.named_modules() if isinstance(m, QuantConv)}


def insert(module: nn.Module) -> nn.Module:
    """Wrap every `Conv` of a fused module, in place.

    The 1x1 predictors and the transposed convolutions, which cost little, stay as they are.

    Raises:
        ValueError: the module is not fused.
    """
    if isinstance(module, Conv):
        if not isinstance(module.norm, nn.Identity):
            raise ValueError("fuse the network before its convolutions are quantised")
        return QuantConv(module)
    for name, child in module.named_children():
        setattr(module, name, insert(child))
    return module


# --- post-training -------------------------------------------------------------------------------


@contextmanager
def _observing(module: nn.Module) -> Iterator[None]:
    layers = quant_convs(module).values()
    for layer in layers:
        layer.observing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.observing = False


@torch.no_grad()
def calibrate(body: nn.Module, images: Sequence[Tensor]) -> None:
    """Observe the range of every layer's input, then activate all layers.

    Args:
        body: a network with `QuantConv`, in evaluation mode, not active yet.
        images: network inputs ``[B, 3, H, W]``, a hundred pictures or so.

    Raises:
        ConfigError: no images.
    """
    if not images:
        raise ConfigError("calibration needs at least one image")
    with _observing(body):
        for image in images:
            body(image)
    activate(body, set())


def activate(body: nn.Module, in_float: set[str]) -> None:
    """Activate all layers but those named."""
    for name, layer in quant_convs(body).items():
        layer.active.fill_(name not in in_float)


class Sensitivity(NamedTuple):
    """How much harm one layer does when it alone is rounded."""

    layer: str
    error: float
    """mean squared error of the network's raw outputs, relative to their variance"""


def _error(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Mean over classes and sides of the relative squared error."""
    parts = [
        (a - b).square().mean() / b.var().clamp(min=1e-12)
        for a, b in zip(outputs, wanted, strict=True)
    ]
    return float(torch.stack(parts).mean())


@torch.no_grad()
def sensitivities(body: nn.Module, images: Sequence[Tensor]) -> list[Sensitivity]:
    """Round one layer after the other, worst first; equal ones keep their order.

    Args:
        body: a calibrated network; which layers are active is the same afterwards.
        images: network inputs; a few are enough.
    """
    layers = quant_convs(body)
    before = {name for name, layer in layers.items() if not layer.active}
    activate(body, set(layers))
    wanted = [body(image) for image in images]
    rows = []
    for name in layers:
        activate(body, set(layers) - {name})
        errors = [_error(body(x), w) for x, w in zip(images, wanted, strict=True)]
        rows.append(Sensitivity(name, sum(errors) / len(errors)))
    activate(body, before)
    return sorted(rows, key=lambda row: -row.error)


def quantise(body: nn.Module, images: Sequence[Tensor], keep: int = 0) -> list[Sensitivity]:
    """Post-training quantisation of a network with `QuantConv`, in place.

    Args:
        body: see `calibrate`.
        images: network inputs; the first four are used for the sensitivities.
        keep: how many of the most sensitive layers stay in floating point.

    Returns:
        All layers, worst first; the first ``keep`` are in floating point.

    Raises:
        ConfigError: no images, or ``keep`` is negative.
    """
    if keep < 0:
        raise ConfigError(f"keep: must be 0 or more layers, got {keep}")
    calibrate(body, images)
    rows = sensitivities(body, [images[i] for i in range(min(4, len(images)))])
    activate(body, {row.layer for row in rows[:keep]})
    return rows
