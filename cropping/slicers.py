"""Slicers: ways to choose the crops of an image, behind one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Any, Self

from dmnet.core.boxes import Window
from dmnet.core.config import build, own_settings
from dmnet.core.errors import ConfigError
from dmnet.core.plugins import Choice, find
from dmnet.core.ranges import Settings, Share
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.cropping import density as by_density
from dmnet.cropping import oracle, tiles
from dmnet.cropping.base import Slicer

SLICERS: dict[str, Slicer] = {
    "density": by_density.DENSITY,
    "uniform": tiles.UNIFORM,
    "grid": tiles.GRID,
    "none": tiles.NONE,
    "oracle": oracle.ORACLE,
}
"""The slicers by name."""


@dataclass(frozen=True)
class CropConfig(Settings):
    """How crop windows are chosen: a slicer, and the settings that it brings.

    In files and on the command line a slicer's settings stand beside ``slicer``. Those of another
    slicer of the table may stand there too and do nothing, so that a preset suits every slicer.

    >>> config = CropConfig.of("grid", tile=640)
    >>> config.settings.overlap, config.needs
    (0.2, 'nothing')
    """

    slicer: Annotated[str, Choice(SLICERS)] = "density"
    """``density``: windows of a density map; ``uniform``: rows x cols; ``grid``: fixed tiles with
    overlap; ``none``: no crops, the whole image only; ``oracle``: from the ground-truth boxes."""
    min_visible: Share = 0.5
    """Share of an object's area that must be inside a crop for it to be labelled there; what is
    cut below becomes an ignored region. The reference preset uses 1."""
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Settings of the slicer by name; they may as well stand beside this one."""

    def __post_init__(self) -> None:
        """Check the values, those of the slicer too.

        Raises:
            ValueError: a value outside its range, two that contradict each other, or a setting
                that the slicer does not have.
        """
        super().__post_init__()
        if self.entry.Config is not None:
            whole = {f.name: getattr(self.settings, f.name) for f in fields(self.settings)}
            object.__setattr__(self, "own", whole)

    @classmethod
    def of(cls, slicer: str = "density", **settings: Any) -> Self:
        """Settings by name, those of the slicer among them.

        Raises:
            ConfigError: one does not exist or does not fit.
        """
        return build(cls, {"slicer": slicer, **settings}, "crop")

    def having(self, **settings: Any) -> Self:
        """The same with other settings of the slicer."""
        return replace(self, own={**self.own, **settings})

    @cached_property
    def entry(self) -> Slicer:
        """The slicer.

        Raises:
            ValueError: there is none of this name.
        """
        try:
            return find(self.slicer, SLICERS, Slicer)
        except ConfigError as error:
            raise ValueError(f"slicer: {error}") from error

    @cached_property
    def settings(self) -> Any:
        """The settings that the slicer gets.

        Raises:
            ValueError: it has no such settings.
        """
        return own_settings(self.entry.Config, self, "")

    @property
    def needs(self) -> str:
        """What the slicer looks at: ``nothing``, ``map`` or ``annotations``."""
        return self.entry.needs

    @property
    def label_bound(self) -> float:
        """Visible share from which on an object is labelled in a crop."""
        published = getattr(self.settings, "preset", "") == "reference"
        return 1.0 if published else self.min_visible


def slice_image(
    config: CropConfig,
    size: Size,
    density: DensityMap | None = None,
    annotations: Annotations | None = None,
) -> list[Window]:
    """Crop windows of one image, in a stable order.

    Args:
        config: slicer and settings.
        size: ``(height, width)`` of the image in pixels.
        density: density map, needed by ``density``.
        annotations: ground truth, needed by ``oracle``.

    Returns:
        Half-open windows inside the image; for ``reference`` density crops in scan order of the
        components, else row by row.

    Raises:
        MissingInputError: the slicer needs a map or boxes and has none.
        ConfigError: map or boxes belong to an image of another size.

    >>> slice_image(CropConfig.of("uniform", rows=1, cols=2), (100, 300))
    [(0, 0, 150, 100), (150, 0, 300, 100)]
    """
    if size[0] < 1 or size[1] < 1:
        raise ConfigError(f"an image must have at least one pixel, got size {size} (h, w)")
    for name, given in (("density map", density), ("annotations", annotations)):
        if given is not None and tuple(given.size) != tuple(size):
            raise ConfigError(
                f"the {name} is for an image of {given.size[0]}x{given.size[1]} (h x w), "
                f"the image has {size[0]}x{size[1]}: give the one made for this image"
            )
    windows = config.entry.cut(config.settings, size, density, annotations)
    for x1, y1, x2, y2 in windows:
        if not (0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]):
            raise ConfigError(
                f"slicer '{config.slicer}' cut {x1, y1, x2, y2} out of an image of "
                f"{size[0]}x{size[1]} (h x w): windows are half-open and inside the image"
            )
    return windows
