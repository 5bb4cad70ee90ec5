"""The five sizes and how each is put together (paper, sections 3.1-3.3 and its appendix)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from dmnet.detectors.yolov6.backbone import Backbone
from dmnet.detectors.yolov6.blocks import (
    Activation,
    Block,
    CspSppf,
    CspStackRep,
    RepVGG,
    Sppf,
    conv_relu,
    conv_silu,
    rep_stack,
)
from dmnet.detectors.yolov6.head import FINE_STRIDES, STRIDES, Head, Outputs
from dmnet.detectors.yolov6.neck import RepPan
from dmnet.detectors.yolov6.repoptimizer import LinearAdd, RepOptConv

BACKBONE_CHANNELS = (64, 128, 256, 512, 1024)
BACKBONE_REPEATS = (1, 6, 12, 18, 6)
NECK_CHANNELS = (256, 128, 128, 256, 256, 512)
NECK_REPEATS = (12, 12, 12, 12)


@dataclass(frozen=True)
class Size:
    """What distinguishes the sizes."""

    depth: float
    """factor of the repeats"""
    width: float
    """factor of the channels"""
    csp: float | None = None
    """hidden share of CSPStackRep; none: plain stacks (EfficientRep)"""
    act: Activation = "relu"
    """activation of backbone and neck; with silu the 3x3 blocks are plain convolutions"""
    bins: int = 0
    """greatest distance of the DFL distribution; 0: no DFL"""
    iou: Literal["siou", "giou"] = "giou"
    """box loss"""


SIZES: dict[str, Size] = {
    "yolov6-n": Size(0.33, 0.25, iou="siou"),
    "yolov6-t": Size(0.25, 0.50, iou="siou"),
    "yolov6-s": Size(0.33, 0.50),
    "yolov6-m": Size(0.60, 0.75, csp=2 / 3, bins=16),
    "yolov6-l": Size(1.00, 1.00, csp=1 / 2, act="silu", bins=16),
}
"""Name -> size.

T is S with fewer repeats: depth .25 and width .50 give its published 15.0 M parameters and 36.7
GFLOPs. (Depth .33 and width .375, which are also quoted for it, give 9.7 M and 24.7.)
"""

Form = Literal["rep", "plain", "search", "repopt"]
"""How the 3x3 blocks are trained: three branches, the bare convolution, or see `repoptimizer`."""


def scaled_channels(channels: int, width: float) -> int:
    """Channels times ``width``, rounded up to a multiple of 8."""
    return math.ceil(channels * width / 8) * 8


def scaled_repeats(repeats: int, depth: float) -> int:
    """Repeats times ``depth``, rounded, at least 1; one repeat stays one."""
    return max(1, round(repeats * depth)) if repeats > 1 else repeats


def make_block(size: Size, form: Form) -> Block:
    """The 3x3 block of a size in one of its training forms."""
    if size.act == "silu":
        return conv_silu
    forms: dict[Form, Block] = {
        "rep": RepVGG,
        "plain": conv_relu,
        "search": LinearAdd,
        "repopt": RepOptConv,
    }
    return forms[form]


def make_stage(size: Size, block: Block) -> Callable[[int, int, int], nn.Module]:
    """What a stage is made of: a plain stack, or CSPStackRep."""
    if size.csp is None:
        return partial(rep_stack, block=block)
    return partial(CspStackRep, ratio=size.csp, block=block, act=size.act)


class Body(nn.Module):
    """Backbone, neck and head: everything between pixels and raw predictions."""

    def __init__(
        self,
        size: Size,
        classes: int,
        *,
        form: Form = "rep",
        pool: Literal["sppf", "csp"] = "sppf",
        fine: bool = False,
    ) -> None:
        """Put a size together.

        Args:
            size: one of `SIZES`, or another.
            classes: number of classes.
            form: how the 3x3 blocks are trained.
            pool: the pyramid pooling: ``sppf`` as published first, ``csp`` as in version 3.
            fine: a level at stride 4 beside those at 8, 16 and 32.
        """
        super().__init__()
        self.strides = FINE_STRIDES if fine else STRIDES
        wide = [scaled_channels(c, size.width) for c in BACKBONE_CHANNELS]
        neck = [scaled_channels(c, size.width) for c in NECK_CHANNELS]
        deep = [scaled_repeats(n, size.depth) for n in BACKBONE_REPEATS]
        steps = [scaled_repeats(n, size.depth) for n in NECK_REPEATS]
        block = make_block(size, form)
        stage = make_stage(size, block)
        pooling = (Sppf if pool == "sppf" else CspSppf)(wide[-1], wide[-1], size.act)
        self.backbone = Backbone(wide, deep, block, stage, pooling)
        self.neck = RepPan(wide[1:], neck, steps, stage, size.act, fine=fine)
        finest = [neck[1]] if fine else []
        self.head = Head([*finest, neck[1], neck[3], neck[5]], classes, size.bins)

    def features(self, images: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]``, sides multiples of 32 -> the neck's features, level by level."""
        out: list[Tensor] = self.neck(*self.backbone(images))
        return out

    def forward(self, images: Tensor) -> Outputs:
        """``[B, 3, H, W]``, RGB 0..1, sides multiples of 32 -> `Outputs`."""
        out: Outputs = self.head(self.features(images))
        return out
