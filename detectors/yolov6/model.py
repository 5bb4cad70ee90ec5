"""YOLOv6 as a `DetectionNet`: images in, losses or detections out.

Li et al., "YOLOv6: A Single-Stage Object Detection Framework for Industrial Applications"
(arXiv 2209.02976) and "YOLOv6 v3.0" (arXiv 2301.05586).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmnet.core.config import build as build_settings
from dmnet.core.errors import ConfigError
from dmnet.core.training.weights import load_state, read_weights
from dmnet.detectors.base import Target, full_name, load_net
from dmnet.detectors.dense import (
    Letterbox,
    Objects,
    OneStage,
    ignored_cells,
    objects_of,
)
from dmnet.detectors.yolov6 import losses
from dmnet.detectors.yolov6.assigner import Positives, adaptive, task_aligned
from dmnet.detectors.yolov6.criterion import (
    BOX_LOSSES,
    Batch,
    detection_losses,
    distillation_losses,
)
from dmnet.detectors.yolov6.fuse import fuse
from dmnet.detectors.yolov6.head import STRIDES, Cells, Outputs, cells_of, distances, to_boxes
from dmnet.detectors.yolov6.int8 import compile_int8
from dmnet.detectors.yolov6.quantise import Sensitivity, insert, quantise
from dmnet.detectors.yolov6.repoptimizer import adopt_scales
from dmnet.detectors.yolov6.settings import YoloConfig
from dmnet.detectors.yolov6.sizes import SIZES, Body, Size

# --- the network ---------------------------------------------------------------------------------


class YoloV6(OneStage):
    """One of `SIZES` behind the interface of `DetectionNet`."""

    config: YoloConfig

    def __init__(
        self, name: str, config: YoloConfig, classes: int, size: Size | None = None
    ) -> None:
        """Build the network.

        Args:
            name: a key of `SIZES`.
            config: settings.
            classes: number of classes.
            size: instead of that of ``name`` (for tests and trials).

        Raises:
            ConfigError: settings that do not fit together.
            CheckpointError: a weights file that does not fit.
        """
        super().__init__()
        self.architecture, self.classes, self.config = name, classes, config
        self.settings = asdict(config)
        self.size = size or SIZES[name]
        check(config, self.size)
        self.body = make_body(self.size, config, classes)
        self.epoch, self.epochs = 0, 1
        self._teacher: list[YoloV6] = []  # in a list: no part of the state_dict

    def predictions(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStage.predictions`."""
        outputs = as_float(self.body(images))
        boxes = to_boxes(distances(outputs.sides, self.size.bins), self._cells(images))
        return boxes, outputs.logits.sigmoid()

    def losses(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """See `DetectionNet.losses`: classes, boxes, sides; with a teacher its divergences."""
        box = self.letterbox(images, shared=True)
        features = self.body.features(box.canvas)
        outputs = as_float(self.body.head(features))
        with torch.autocast(box.canvas.device.type, enabled=False):
            found, positives = self._losses(outputs, box, targets)
            if self.config.teacher != "none":
                found |= self._distil(features, outputs, box.canvas, positives)
        return found

    def _losses(
        self, outputs: Outputs, box: Letterbox, targets: Sequence[Target]
    ) -> tuple[dict[str, Tensor], Positives]:
        cells = self._cells(box.canvas)
        boxes = to_boxes(distances(outputs.sides, self.size.bins), cells)
        objects = objects_of(targets, box)
        positives = self._assign(outputs, boxes, objects, cells)
        ignored = ignored_cells(targets, box, cells.grids, cells.levels)
        batch = Batch(outputs, boxes, objects, positives, cells, ignored)
        return detection_losses(batch, BOX_LOSSES[self.size.iou], self.size.bins), positives

    def _cells(self, canvas: Tensor) -> Cells:
        """The cells of a network input ``[B, 3, H, W]``."""
        height, width = canvas.shape[-2:]
        levels = self.body.strides
        return cells_of([(height // s, width // s) for s in levels], canvas.device, levels)

    def _assign(self, outputs: Outputs, boxes: Tensor, objects: Objects, cells: Cells) -> Positives:
        side, plain = self.config.min_side, boxes.detach()
        if self.epoch < self.config.atss_epochs:
            return adaptive(plain, objects, cells, min_side=side)
        return task_aligned(outputs.logits.detach().sigmoid(), plain, objects, cells, min_side=side)

    def _distil(
        self, features: list[Tensor], outputs: Outputs, canvas: Tensor, positives: Positives
    ) -> dict[str, Tensor]:
        if not self._teacher:
            self._teacher.append(load_teacher(self, canvas.device))
        teacher = self._teacher[0].body
        with torch.no_grad():
            wanted = teacher.features(canvas)
            soft = as_float(teacher.head(wanted))
        if self.config.form == "int8":
            return {"loss_distil_channels": channel_loss(features, wanted)}
        weight = losses.cosine_decay(self.epoch, self.epochs)
        return distillation_losses(outputs, soft, positives, self.size.bins, weight)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the assigner of the epoch and the weight of the distillation."""
        self.epoch, self.epochs = epoch, epochs

    def deploy(self) -> YoloV6:
        """Re-parameterise, in place; form int8 on a CPU goes onto integer kernels."""
        fuse(self.eval().body)
        if self.config.form == "int8" and next(self.parameters()).device.type == "cpu":
            compile_int8(self.body)
        self.body.to(memory_format=torch.channels_last)
        return self


def as_float(outputs: Outputs) -> Outputs:
    """Single precision, where half precision would lose small losses and far corners."""
    return Outputs(outputs.logits.float(), outputs.sides.float())


def make_body(size: Size, config: YoloConfig, classes: int) -> Body:
    """The network in its training form; int8 starts fused, its ranges unknown."""
    if config.form != "int8":
        return Body(size, classes, form=config.form, pool=config.pool, fine=config.fine)
    body = Body(size, classes, form="plain", pool=config.pool, fine=config.fine)
    insert(fuse(body))
    return body


def channel_loss(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Channel-wise distillation of the neck's levels, added."""
    pairs = zip(features, wanted, strict=True)
    return torch.stack([losses.channel_divergence(a.float(), b.float()) for a, b in pairs]).sum()


def quantised(
    net: YoloV6, images: Sequence[Tensor], keep: int = 0
) -> tuple[YoloV6, list[Sensitivity]]:
    """Post-training quantisation: a new network of form int8.

    Save it with `dmnet.detectors.base.save_net`; train it further (quantisation-aware) with its
    file as ``weights``, the original's as ``teacher``, and form int8.

    Args:
        net: a trained network of another form, left as it is.
        images: pictures ``[3, h, w]`` RGB 0..1 like those to come, a hundred or so; asked for one
            by one.
        keep: how many of the most sensitive layers stay in floating point.

    Returns:
        The network, and the sensitivity of its layers, worst first.

    Raises:
        ConfigError: no images, or the network is quantised already.
    """
    if net.config.form == "int8":
        raise ConfigError("form: this network is quantised already; start from its float weights")
    config = replace(net.config, form="int8", weights="none", teacher="none")
    made = YoloV6(net.architecture, config, net.classes, net.size)
    made.named = net.named
    made.body = copy.deepcopy(net.body).eval()
    insert(fuse(made.body))
    return made.eval(), quantise(made.body, _Canvases(images, config), keep)


class _Canvases(Sequence[Tensor]):
    """Network inputs of pictures, made when asked for."""

    def __init__(self, images: Sequence[Tensor], config: YoloConfig) -> None:
        self.images, self.config = images, config

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        return Letterbox([self.images[index]], self.config).canvas


def check(config: YoloConfig, size: Size) -> None:
    """Refuse settings that do not fit together.

    Raises:
        ConfigError: see the text.
    """
    if config.input_size - 2 * config.border < STRIDES[-1]:
        raise ConfigError(
            f"input_size: {config.input_size} leaves no {STRIDES[-1]} pixels inside a border of "
            f"{config.border}"
        )
    if size.act == "silu" and config.form in ("search", "repopt"):
        raise ConfigError(
            f"form '{config.form}': this size is made of plain convolutions with SiLU, there are "
            "no branches to re-parameterise; leave form as it is"
        )


def load_teacher(net: YoloV6, device: torch.device) -> YoloV6:
    """The teacher of a self-distillation, fused and frozen.

    Raises:
        CheckpointError: not weights of the same architecture and classes.
    """
    path, clean = Path(net.config.teacher), {"teacher": "none"}
    teacher = load_net(path, net.architecture, clean, net.classes)
    assert isinstance(teacher, YoloV6)
    return teacher.deploy().to(device).requires_grad_(False)


def start_from(net: YoloV6, path: Path) -> None:
    """Load starting weights; for form repopt, multipliers and kernels from a search training.

    Raises:
        CheckpointError: the file cannot be read or does not fit.
        ConfigError: it holds no scales of this size.
    """
    state, _ = read_weights(path)
    if net.config.form != "repopt":
        load_state(net, state, path, full_name(net))
        return
    searched = make_body(net.size, replace(net.config, form="search"), net.classes)
    own = {key.removeprefix("body."): value for key, value in state.items()}
    adopt_scales(net.body, searched, own)


def build(name: str, settings: Mapping[str, Any], classes: int) -> YoloV6:
    """Make one of `SIZES`, see `dmnet.detectors.base.Builder`.

    Raises:
        ConfigError: unknown settings, or ones that do not fit together.
        CheckpointError: starting weights that do not fit.
    """
    config = build_settings(YoloConfig, settings, name)
    net = YoloV6(name, config, classes)
    if config.weights != "none":
        start_from(net, Path(config.weights))
    return net
