"""From regions to crops: split, padded, lengthened and joined."""

from __future__ import annotations

from dataclasses import dataclass

from dmnet.core.boxes import Window
from dmnet.core.ranges import Margin, Settings, Share, Side
from dmnet.core.records import Size
from dmnet.cropping import regions


@dataclass(frozen=True)
class ShapeConfig(Settings):
    """The shape of crops.

    The defaults were chosen on VisDrone train with true maps and threshold 0.08: the fewest pixels
    at which at least 98 % of the objects are whole in a crop, with at most 5 crops per image.
    """

    window: tuple[Side, Side] = (70, 70)
    """Height and width of the scanned window, pixels."""
    padding: Margin = 20
    """Context added on every side of a component, pixels."""
    min_side: Margin = 200
    """Shorter sides are lengthened to this, inside the image, pixels."""
    max_side: Side | None = 800
    """Longer crops are split along the valley of least density, pixels; none: no limit."""
    merge_overlap: Share = 0.3
    """Crops that overlap by more than this share of the smaller one are joined; 1: never."""
    merge_waste: Share = 0.1
    """Crops are joined if less than this share of their hull belongs to neither; 0: never."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value outside its range, or two that contradict each other.
        """
        super().__post_init__()
        if self.max_side is not None and self.max_side < max(2 * self.padding + 1, self.min_side):
            raise ValueError(
                f"max_side {self.max_side} is too small for min_side {self.min_side} and twice "
                f"padding {self.padding}: raise it, or lower the others"
            )


def shaped(
    config: ShapeConfig,
    size: Size,
    windows: list[Window],
    cost: regions.Cost,
    shrink: regions.Shrink,
) -> list[Window]:
    """Split, pad, lengthen and merge windows of an image of ``size`` (height, width)."""
    if config.max_side is not None:
        limit = config.max_side - 2 * config.padding
        windows = [
            part for window in windows for part in regions.split(window, limit, cost, shrink)
        ]
    padded = [regions.pad(window, config.padding, size) for window in windows]
    grown = [regions.grow(window, config.min_side, size) for window in padded]
    return regions.merge(grown, config.merge_overlap, config.merge_waste, config.max_side)
