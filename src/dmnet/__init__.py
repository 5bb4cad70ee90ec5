"""Density-guided object detection in aerial images (DMNet, CVPR Workshops 2020, and beyond).

The front door: `load` gives a whole model; the other names are its parts. Importing this module
imports none of them: each comes with the first use of its name.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmnet.core.dataset import open_dataset
    from dmnet.core.images import read_image
    from dmnet.core.records import Annotations, DensityMap, Detections
    from dmnet.cropping.slicers import CropConfig, slice_image
    from dmnet.density.ground_truth import density_map
    from dmnet.density.load import load_density
    from dmnet.detectors.load import load_detector
    from dmnet.fusion.evaluation.evaluate import score
    from dmnet.fusion.fuse import fuse_image
    from dmnet.fusion.report.draw import draw_boxes
    from dmnet.pipeline.predict.model import Model
    from dmnet.pipeline.predict.named import load
    from dmnet.pipeline.predict.result import Result

__version__ = "0.1.0"

__all__ = [
    "Annotations",
    "CropConfig",
    "DensityMap",
    "Detections",
    "Model",
    "Result",
    "density_map",
    "draw_boxes",
    "fuse_image",
    "load",
    "load_density",
    "load_detector",
    "open_dataset",
    "read_image",
    "score",
    "slice_image",
]

_HOMES = {
    "Annotations": "core.records",
    "CropConfig": "cropping.slicers",
    "DensityMap": "core.records",
    "Detections": "core.records",
    "Model": "pipeline.predict.model",
    "Result": "pipeline.predict.result",
    "density_map": "density.ground_truth",
    "draw_boxes": "fusion.report.draw",
    "fuse_image": "fusion.fuse",
    "load": "pipeline.predict.named",
    "load_density": "density.load",
    "load_detector": "detectors.load",
    "open_dataset": "core.dataset",
    "read_image": "core.images",
    "score": "fusion.evaluation.evaluate",
    "slice_image": "cropping.slicers",
}


def __getattr__(name: str) -> Any:
    """Import what a name stands for when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dmnet' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"dmnet.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, imported or not."""
    return sorted({*globals(), *__all__})
