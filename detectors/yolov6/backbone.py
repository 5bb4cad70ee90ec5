"""Backbones: EfficientRep for the small sizes, CSPBep for the large ones (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

Stage = Callable[[int, int, int], nn.Module]
"""``stage(channels in, channels out, repeats)``."""


class Backbone(nn.Module):
    """Stem at stride 2, then four stages; gives the features at strides 4, 8, 16 and 32."""

    def __init__(
        self,
        channels: Sequence[int],
        repeats: Sequence[int],
        block: Callable[[int, int, int], nn.Module],
        stage: Stage,
        pool: nn.Module,
    ) -> None:
        """Stack the stages.

        Args:
            channels: of the stem and the four stages.
            repeats: 3x3 blocks of the stem (1) and of each stage.
            block: makes the stride-2 blocks.
            stage: makes what follows each of them.
            pool: what ends the last stage, an SPPF.
        """
        super().__init__()
        self.stem = block(3, channels[0], 2)
        steps = zip(channels, channels[1:], repeats[1:], strict=False)
        self.stages = nn.ModuleList(
            nn.Sequential(block(cin, cout, 2), stage(cout, cout, n)) for cin, cout, n in steps
        )
        self.pool = pool

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``[B, 3, H, W]`` -> features at strides 4, 8, 16, 32."""
        c2 = self.stages[0](self.stem(x))
        c3 = self.stages[1](c2)
        c4 = self.stages[2](c3)
        c5 = self.pool(self.stages[3](c4))
        return c2, c3, c4, c5
