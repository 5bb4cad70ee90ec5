"""YOLOX as a `DetectionNet`: images in, losses or detections out.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021" (arXiv 2107.08430).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dmnet.core.config import build as build_settings
from dmnet.core.errors import ConfigError
from dmnet.detectors.base import Target
from dmnet.detectors.dense import (
    MULTIPLE,
    Letterbox,
    OneStage,
    ignored_cells,
    objects_of,
)
from dmnet.detectors.yolov6.fuse import fuse
from dmnet.detectors.yolox.assigner import simota
from dmnet.detectors.yolox.body import SIZES, STRIDES, Body, Outputs, cells_of, to_boxes
from dmnet.detectors.yolox.criterion import Batch, detection_losses
from dmnet.detectors.yolox.settings import YoloxConfig


class YoloX(OneStage):
    """One of `SIZES` behind the interface of `DetectionNet`."""

    config: YoloxConfig

    def __init__(self, name: str, config: YoloxConfig, classes: int) -> None:
        """Build the network.

        Args:
            name: a key of `SIZES`.
            config: settings.
            classes: number of classes.

        Raises:
            ConfigError: settings that do not fit together.
        """
        super().__init__()
        if config.input_size - 2 * config.border < MULTIPLE:
            raise ConfigError(
                f"input_size: {config.input_size} leaves no {MULTIPLE} pixels inside a border of "
                f"{config.border}"
            )
        self.architecture, self.classes, self.config = name, classes, config
        self.settings = asdict(config)
        self.body = Body(SIZES[name], classes)
        self.l1 = False

    def predictions(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStage.predictions`."""
        outputs = as_float(self.body(images))
        boxes = to_boxes(outputs.boxes, cells_of(outputs.grids, images.device))
        return boxes, outputs.logits.sigmoid() * outputs.objectness.sigmoid()[..., None]

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """See `DetectionNet.losses`: boxes, objectness, classes, and sides in the last epochs."""
        box = self.letterbox(images, shared=True)
        outputs = self.body(box.canvas)
        with torch.autocast(box.canvas.device.type, enabled=False):
            return self._losses(as_float(outputs), box, targets)

    def _losses(
        self, outputs: Outputs, box: Letterbox, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        cells = cells_of(outputs.grids, box.canvas.device)
        boxes = to_boxes(outputs.boxes, cells)
        objects = objects_of(targets, box)
        positives = simota(
            outputs.logits, outputs.objectness, boxes.detach(), objects, outputs.grids
        )
        ignored = ignored_cells(targets, box, outputs.grids, STRIDES)
        batch = Batch(outputs, boxes, objects, positives, cells, ignored)
        return detection_losses(batch, l1=self.l1)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Decide whether L1 is part of the loss."""
        self.l1 = epochs - epoch <= self.config.l1_epochs

    def deploy(self) -> YoloX:
        """Fold the normalisation into the convolutions, in place."""
        fuse(self.eval().body)
        self.body.to(memory_format=torch.channels_last)
        return self


def as_float(outputs: Outputs) -> Outputs:
    """Single precision, where half precision would lose small losses and far corners."""
    logits, objectness, boxes, grids = outputs
    return Outputs(logits.float(), objectness.float(), boxes.float(), grids)


def build(name: str, settings: Mapping[str, Any], classes: int) -> YoloX:
    """Make one of `SIZES`, see `dmnet.detectors.base.Builder`.

    Raises:
        ConfigError: unknown settings, or ones that do not fit together.
    """
    return YoloX(name, build_settings(YoloxConfig, settings, name), classes)
