"""Settings of the pipeline in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from dmnet.core.ranges import Margin, Range, Settings
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.infer import InferConfig
from dmnet.fusion.fuse import FuseConfig
from dmnet.fusion.merge import MergeConfig
from dmnet.pipeline.stages.predict_density import Config as DensityConfig

FLOOR = 0.05
"""Detections below this score, or below the confidence where that is lower, are never kept."""


SEGMENT = 32
"""Frames of a video that are kept together, at least."""


@dataclass(frozen=True)
class RasterConfig(Settings):
    """How rasters are read."""

    block: Annotated[int, Range(64, 16_384)] = 2048
    """Side of a block in pixels; memory grows with its square."""
    overlap: Margin = 256
    """Overlap of two blocks in pixels; larger objects may be cut by a seam."""
    reduction: Annotated[int, Range(1, 64)] = 2
    """The density network and the look at the whole block see 1/n of the resolution."""
    bands: tuple[Annotated[int, Range(1, 1_000)], ...] = ()
    """Bands shown as red, green, blue, from 1, or one band for grey; empty: as the file says."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: blocks that overlap by half or more; a number of bands that is no colour.
        """
        super().__post_init__()
        if 2 * self.overlap >= self.block:
            raise ValueError(f"overlap must be below half of block, got {self.overlap}")
        if len(self.bands) not in (0, 1, 3):
            raise ValueError(f"bands must be one or three numbers, got {self.bands}")


@dataclass(frozen=True)
class VideoConfig(Settings):
    """How videos are read."""

    density_every: Annotated[int, Range(1, 100_000)] = 10
    """The density network looks at every k-th frame; those between take its windows."""
    track: bool = False
    """Follow objects from frame to frame (ByteTrack; extra viz)."""
    line: tuple[Annotated[int, Range(-1_000_000, 1_000_000)], ...] = ()
    """x1,y1,x2,y2 in pixels: follow objects and count those whose centre crosses this line."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a line that is not four numbers, or of no length.
        """
        super().__post_init__()
        if self.line and (len(self.line) != 4 or self.line[:2] == self.line[2:]):
            raise ValueError(f"line must be x1,y1,x2,y2 with two different ends, got {self.line}")

    @property
    def follows(self) -> bool:
        """Whether objects are followed from frame to frame."""
        return self.track or bool(self.line)

    @property
    def segment(self) -> int:
        """Frames of a segment: each one begins with a look of the density network."""
        return -(-SEGMENT // self.density_every) * self.density_every


@dataclass(frozen=True)
class PredictConfig(Settings):
    """Every setting between pixels and detections."""

    predict_density: DensityConfig = field(default_factory=DensityConfig)
    """How density maps are predicted."""
    crop: CropConfig = field(default_factory=CropConfig)
    """How windows are chosen."""
    detect: InferConfig = field(default_factory=InferConfig)
    """How images and windows are put through the detector."""
    fuse: FuseConfig = field(default_factory=lambda: FuseConfig(merge=MergeConfig(top_n=0)))
    """How their detections become one list; without a limit to its length."""
    raster: RasterConfig = field(default_factory=RasterConfig)
    """How GeoTIFF, COG and JPEG 2000 are read."""
    video: VideoConfig = field(default_factory=VideoConfig)
    """How videos are read."""
    across_images: bool | None = None
    """Let batches span images: the last digits then depend on the neighbours; none: on a GPU."""

    def __post_init__(self) -> None:
        """Check the ranges, and refuse a slicer that looks at ground truth.

        Raises:
            ValueError: a slicer such as ``oracle``.
        """
        super().__post_init__()
        if self.crop.needs == "annotations":
            raise ValueError(
                f"crop.slicer {self.crop.slicer} needs annotations; choose density, grid or none"
            )
