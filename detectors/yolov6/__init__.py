"""YOLOv6 in five sizes, written from the papers."""

from dmnet.detectors.yolov6.model import YoloConfig, YoloV6, build, quantised
from dmnet.detectors.yolov6.quantise import Sensitivity
from dmnet.detectors.yolov6.sizes import SIZES

__all__ = ["SIZES", "Sensitivity", "YoloConfig", "YoloV6", "build", "quantised"]
