"""A quantised network on the integer kernels of the CPU (oneDNN).

These are the operators that torch's own compiler emits for quantised convolutions; they need no
compiler here and no deprecated tensor type: activations are plain uint8 tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from dmnet.core.errors import ConfigError
from dmnet.detectors.yolov6.quantise import LEVELS, QuantConv

_FUSED = {"relu": "relu", "silu": "swish", "none": "none"}


def available() -> bool:
    """Whether this build of torch has the integer kernels."""
    present: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return present and hasattr(torch.ops.onednn, "qconv2d_pointwise")


class Int8Conv(nn.Module):
    """A `QuantConv` with packed 8-bit weights; for inference on the CPU only."""

    def __init__(self, quant: QuantConv) -> None:
        """Round and pack the weights."""
        super().__init__()
        conv = quant.inner.conv
        scale, zero = quant.levels()
        self.scale, self.zero = float(scale), int(zero)
        self.stride, self.padding = list(conv.stride), [int(p) for p in conv.padding]
        self.attribute = _FUSED[quant.inner.kind]
        self.out: tuple[float, int] | None = None
        step = quant.weight_scale()
        whole = (conv.weight.detach() / step[:, None, None, None]).round().clamp(-127, 127)
        self.step, self.none = step, torch.zeros(len(step), dtype=torch.int32)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.packed = torch.ops.onednn.qconv_prepack(
            whole.to(torch.int8), step, self.scale, self.zero, self.stride, self.padding, [1, 1], 1
        )

    def rounded(self, x: Tensor) -> Tensor:
        """``x`` as levels, uint8; an input that is uint8 already is."""
        if x.dtype == torch.uint8:
            return x
        levels = (x / self.scale).round_().add_(self.zero).clamp_(0, LEVELS)
        return levels.to(torch.uint8, memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, cin, h, w]`` float or uint8 -> float, or uint8 where the next layer wants it."""
        scale, zero = self.out or (1.0, 0)
        kind = torch.float32 if self.out is None else torch.uint8
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            self.rounded(x), self.scale, self.zero, self.packed, self.step, self.none, self.bias,
            self.stride, self.padding, [1, 1], 1, scale, zero, kind, self.attribute, [], "",
        )  # fmt: skip
        return result


class _Tracer(fx.Tracer):
    """Sees the convolutions as wholes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Int8Conv) or super().is_leaf_module(m, module_qualified_name)


def _replace(module: nn.Module) -> nn.Module:
    if isinstance(module, QuantConv):
        return Int8Conv(module) if module.active else module.inner
    for name, child in module.named_children():
        setattr(module, name, _replace(child))
    return module


def _stay_in_levels(body: nn.Module) -> None:
    """Let layers whose results only go to integer layers of one range give levels directly."""
    modules = dict(body.named_modules())
    for node in _Tracer().trace(body).nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, Int8Conv):
            continue
        users = [modules.get(str(user.target)) for user in node.users]
        ranges = {(u.scale, u.zero) if isinstance(u, Int8Conv) else None for u in users}
        if len(ranges) == 1 and None not in ranges:
            layer.out = ranges.pop()


def compile_int8(body: nn.Module) -> nn.Module:
    """Put a quantised network on integer kernels, in place; for inference on the CPU.

    Raises:
        ConfigError: this build of torch has none.
    """
    if not available():
        raise ConfigError(
            "int8: this build of torch has no oneDNN kernels for 8-bit convolutions; "
            "use the floating-point weights on this machine"
        )
    _replace(body)
    _stay_in_levels(body)
    return body
