"""U-Net: an encoder, a decoder, and skip connections between them.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTH = 4
"""Number of 2x2 poolings."""


class UNet(nn.Module):
    """Encoder of ``width`` x (1, 2, 4, 8, 16) channels, transposed-convolution decoder, 1x1 head.

    ``padding="valid"`` with ``width=64`` and ``stride=1`` is the published network (572 -> 388).
    ``padding="same"`` keeps the size; ``stride`` then sum-pools the output into cells, so that a
    density keeps its count.
    """

    multiple = 2**DEPTH
    """With padding "same", input sides must be multiples of this."""
    reach = 112
    """With padding "same", no output depends on input further away than this many pixels."""

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        padding: Literal["valid", "same"] = "same",
        stride: int = 4,
        classes: int = 1,
    ) -> None:
        """Build with He initialisation, as the paper asks for."""
        super().__init__()
        self.stride = stride
        widths = [width * 2**level for level in range(DEPTH + 1)]
        pad = 1 if padding == "same" else 0
        self.down = nn.ModuleList(
            _double(before, after, pad)
            for before, after in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
        self.merge = nn.ModuleList(_double(2 * w, w, pad) for w in widths[-2::-1])
        self.head = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` to ``(N, classes, h, w)``."""
        skips: list[Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = merge(torch.cat([_centre(skips.pop(), x), x], dim=1))  # copy and crop
        x = self.head(x)
        return F.avg_pool2d(x, self.stride) * self.stride**2 if self.stride > 1 else x


def _double(before: int, after: int, pad: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=pad),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=pad),
        nn.ReLU(inplace=True),
    )


def _centre(skip: Tensor, like: Tensor) -> Tensor:
    """Cut the middle of ``skip`` to the height and width of ``like``."""
    top = (skip.shape[2] - like.shape[2]) // 2
    left = (skip.shape[3] - like.shape[3]) // 2
    return skip[:, :, top : top + like.shape[2], left : left + like.shape[3]]
