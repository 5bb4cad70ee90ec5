"""Rep-PAN: a path-aggregation network of re-parameterised blocks (paper, section 3.2).

A level at stride 4 for tiny objects, which the paper does not have, can be added.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dmnet.detectors.yolov6.backbone import Stage
from dmnet.detectors.yolov6.blocks import Activation, Conv


class RepPan(nn.Module):
    """Down from stride 32 to 8 (or 4) by transposed convolutions, and up by strided ones."""

    def __init__(
        self,
        backbone: Sequence[int],
        channels: Sequence[int],
        repeats: Sequence[int],
        stage: Stage,
        act: Activation,
        *,
        fine: bool = False,
    ) -> None:
        """Make both ways.

        Args:
            backbone: channels at strides 4, 8, 16, 32.
            channels: six of them, in the order of the ways: two down, two at each step up.
            repeats: 3x3 blocks of the four stages.
            stage: makes the stages.
            act: activation of the convolutions between them.
            fine: a level at stride 4 too, as wide as that at stride 8.
        """
        super().__init__()
        c2, c3, c4, c5 = backbone
        d4, d3, u3, p4, u4, p5 = channels
        self.reduce5 = Conv(c5, d4, act=act)
        self.up5 = nn.ConvTranspose2d(d4, d4, 2, 2)
        self.down4 = stage(c4 + d4, d4, repeats[0])
        self.reduce4 = Conv(d4, d3, act=act)
        self.up4 = nn.ConvTranspose2d(d3, d3, 2, 2)
        self.down3 = stage(c3 + d3, d3, repeats[1])
        self.stride3 = Conv(d3, u3, 3, 2, act)
        self.up4_out = stage(u3 + d3, p4, repeats[2])
        self.stride4 = Conv(p4, u4, 3, 2, act)
        self.up5_out = stage(u4 + d4, p5, repeats[3])
        self.fine = fine
        if fine:
            self.reduce3 = Conv(d3, d3, act=act)
            self.up3 = nn.ConvTranspose2d(d3, d3, 2, 2)
            self.down2 = stage(c2 + d3, d3, repeats[1])
            self.stride2 = Conv(d3, d3, 3, 2, act)
            self.up3_out = stage(2 * d3, d3, repeats[2])

    def forward(self, c2: Tensor, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        """Features at strides 4, 8, 16, 32 -> those of the levels, the finest first."""
        f5 = self.reduce5(c5)
        f4 = self.reduce4(self.down4(torch.cat([self.up5(f5), c4], 1)))
        p3 = self.down3(torch.cat([self.up4(f4), c3], 1))
        finest = []
        if self.fine:
            f3 = self.reduce3(p3)
            finest = [self.down2(torch.cat([self.up3(f3), c2], 1))]
            p3 = self.up3_out(torch.cat([self.stride2(finest[0]), f3], 1))
        p4 = self.up4_out(torch.cat([self.stride3(p3), f4], 1))
        p5 = self.up5_out(torch.cat([self.stride4(p4), f5], 1))
        return [*finest, p3, p4, p5]
