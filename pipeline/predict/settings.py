"""Settings of the pipeline in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from dmnet.core.ranges import Settings
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.infer import InferConfig
from dmnet.fusion.fuse import FuseConfig
from dmnet.fusion.merge import MergeConfig
from dmnet.pipeline.stages.predict_density import Config as DensityConfig

FLOOR = 0.05
"""Detections below this score, or below the confidence where that is lower, are never kept."""


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
    across_images: bool | None = None
    """Let batches span images: the last digits then depend on the neighbours; none: on a GPU."""

    def __post_init__(self) -> None:
        """Check the ranges, and refuse a slicer that looks at ground truth.

        Raises:
            ValueError: the slicer ``oracle``.
        """
        super().__post_init__()
        if self.crop.slicer == "oracle":
            raise ValueError("crop.slicer oracle needs annotations; choose density, grid or none")
