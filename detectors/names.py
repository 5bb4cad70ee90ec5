"""Which detectors there are: a name and where it is made. None is imported before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmnet.core import plugins
from dmnet.core.errors import ConfigError

TORCHVISION = "dmnet.detectors.torchvision.model:build"
YOLOV6 = "dmnet.detectors.yolov6.model:build"
YOLOX = "dmnet.detectors.yolox.model:build"

NETWORKS: dict[str, str] = {
    "fasterrcnn-r50": TORCHVISION,
    "fasterrcnn-r50-v2": TORCHVISION,
    "fasterrcnn-mobilenetv3": TORCHVISION,
    "fasterrcnn-mobilenetv2": TORCHVISION,
    "retinanet-r50": TORCHVISION,
    "fcos-r50": TORCHVISION,
    "fcos-mobilenetv2": TORCHVISION,
    "yolov6-n": YOLOV6,
    "yolov6-t": YOLOV6,
    "yolov6-s": YOLOV6,
    "yolov6-m": YOLOV6,
    "yolov6-l": YOLOV6,
    "yolox-nano": YOLOX,
    "yolox-tiny": YOLOX,
    "yolox-s": YOLOX,
}
"""Networks that the training loop trains: name -> ``module:builder``, see `Builder`."""

FOREIGN: dict[str, str] = {
    "mmdet": "dmnet.detectors.mmdet.detector:load",
    "onnx": "dmnet.detectors.onnx:OnnxDetector",
    "results": "dmnet.detectors.results:load",
}
"""Detectors from elsewhere: name -> ``module:load``.

``load(path, settings, device, classes) -> Detector``: ``path`` is the checkpoint, ONNX file or
results JSON, ``settings`` a mapping, ``device`` a torch device string, ``classes`` those of the
data set, whose labels the detections have.
"""

DETECTORS: dict[str, str] = {**NETWORKS, **FOREIGN}
"""Every detector by name."""


def family(name: str) -> str:
    """The settings section of a network: the folder that makes it.

    >>> family("yolox-s"), family("retinanet-r50"), family("mmdet"), family("my_net:build")
    ('yolox', 'torchvision', 'mmdet', 'own')
    """
    return DETECTORS[name].split(".")[2] if name in DETECTORS else "own"


def resolve(name: str, table: Mapping[str, str]) -> Any:
    """What makes a detector of this name, or of an outside package's ``module:builder``.

    Raises:
        ConfigError: no such detector.
    """
    if name not in table and not plugins.is_outside(name):
        raise ConfigError(f"no detector is called '{name}'; there are: {', '.join(sorted(table))}")
    return plugins.load(table.get(name, name))
