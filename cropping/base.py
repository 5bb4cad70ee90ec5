"""What a slicer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from dmnet.core.boxes import Window
from dmnet.core.records import Annotations, DensityMap, Size

Cut = Callable[[Any, Size, DensityMap | None, Annotations | None], list[Window]]
"""``cut(settings, size, density, annotations)``: windows inside the image, in a stable order."""


@dataclass(frozen=True)
class Slicer:
    """A way to choose the crops of an image, and what it looks at besides the image's size."""

    cut: Cut
    needs: Literal["nothing", "map", "annotations"] = "nothing"
    Config: type[Any] | None = None
    """Class of its settings; None: it has none, and gets the `CropConfig`."""
