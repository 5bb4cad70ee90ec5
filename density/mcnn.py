"""MCNN, the multi-column network for density maps.

Zhang et al., "Single-Image Crowd Counting via Multi-Column Convolutional Neural Network",
CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmnet.core.errors import ConfigError

COLUMNS = (
    ((9, 16), (7, 32), (7, 16), (7, 8)),
    ((7, 20), (5, 40), (5, 20), (5, 10)),
    ((5, 24), (3, 48), (3, 24), (3, 12)),
)
"""(kernel, channels) of the convolutions of each column (paper, figure 2)."""


class MCNN(nn.Module):
    """Three columns with small, middle and large receptive fields, joined by a 1x1 convolution.

    133,705 parameters with 3 input channels. Output at 1/4 of the input, without a final ReLU.
    """

    stride = 4
    """Pixels of a side of an output cell."""
    multiple = 4
    """Input sides must be multiples of this, so that no row is dropped."""
    reach = 40
    """An output cell depends on no input further away than this many pixels."""

    def __init__(self, channels: int = 3, stride: int = 4) -> None:
        """Build with weights from N(0, 0.01) and biases 0.

        Raises:
            ConfigError: a stride that the network does not have.
        """
        super().__init__()
        if stride != self.stride:
            raise ConfigError(f"mcnn answers at stride {self.stride}, not at {stride}")
        self.columns = nn.ModuleList(_column(channels, layers) for layers in COLUMNS)
        self.head = nn.Conv2d(sum(layers[-1][1] for layers in COLUMNS), 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` to ``(N, 1, H // 4, W // 4)``."""
        joined = torch.cat([column(images) for column in self.columns], dim=1)  # [N, 30, H/4, W/4]
        density: Tensor = self.head(joined)
        return density


def _column(channels: int, layers: tuple[tuple[int, int], ...]) -> nn.Sequential:
    modules: list[nn.Module] = []
    for index, (kernel, width) in enumerate(layers):
        modules += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
        if index < 2:
            modules.append(nn.MaxPool2d(2))
        channels = width
    return nn.Sequential(*modules)
