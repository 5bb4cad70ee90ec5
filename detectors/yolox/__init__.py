"""YOLOX in three small sizes, written from the paper."""

from dmnet.detectors.yolox.body import SIZES
from dmnet.detectors.yolox.model import YoloX, YoloxConfig, build

__all__ = ["SIZES", "YoloX", "YoloxConfig", "build"]
