"""What the one-stage networks share: letterbox, objects of a batch, class-wise NMS."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from dmnet.core.records import Size
from dmnet.core.training.processes import shared_size
from dmnet.detectors.base import DetectionNet, Found, Target
from dmnet.detectors.nms import class_nms
from dmnet.detectors.settings import OneStageConfig

GREY = 114 / 255
"""Colour of the padding."""

MULTIPLE = 32
"""The sides of the network's input are multiples of this, pixels."""

CANDIDATES = 10_000
"""Detections of an image that enter the NMS at most."""


def scaled_size(size: Size, config: OneStageConfig) -> Size:
    """Size of an image after scaling, without border; the aspect is kept."""
    room = config.input_size - 2 * config.border
    scale = min(room / max(size), config.max_zoom)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def canvas_size(size: Size, config: OneStageConfig) -> Size:
    """Size of the network's input for an image: scaled, bordered, sides multiples of 32."""
    height, width = (-(-(side + 2 * config.border) // MULTIPLE) * MULTIPLE for side in size)
    return height, width


class Objects(NamedTuple):
    """The objects of a batch, image after image."""

    boxes: Tensor
    """``[N, 4]`` x1 y1 x2 y2 in pixels of the network's input."""

    labels: Tensor
    """``[N]`` class index from 0."""

    image: Tensor
    """``[N]`` position of the image in the batch."""


class Letterbox:
    """Images of a batch on one grey canvas, and the way back for the boxes."""

    def __init__(
        self,
        images: Sequence[Tensor],
        config: OneStageConfig,
        order: torch.memory_format = torch.contiguous_format,
        *,
        shared: bool = False,
    ) -> None:
        """Scale and place the images ``[3, h, w]``.

        Args:
            images: of any sizes.
            config: how they are scaled.
            order: memory order of the canvas.
            shared: the canvas has one size in all processes.
        """
        self.border = config.border
        self.original = [(image.shape[-2], image.shape[-1]) for image in images]
        self.scaled = [scaled_size(size, config) for size in self.original]
        sizes = [canvas_size(size, config) for size in self.scaled]
        height, width = max(s[0] for s in sizes), max(s[1] for s in sizes)
        height, width = shared_size(height, width) if shared else (height, width)
        shape = (len(images), 3, height, width)
        self.canvas = torch.empty(
            shape, dtype=images[0].dtype, device=images[0].device, memory_format=order
        ).fill_(GREY)
        for place, image, new in zip(self.canvas, images, self.scaled, strict=True):
            top, left = self.border, self.border
            place[:, top : top + new[0], left : left + new[1]] = resized(image, new)

    def _ratio(self, index: int, like: Tensor) -> Tensor:
        (old_h, old_w), (new_h, new_w) = self.original[index], self.scaled[index]
        return like.new_tensor([new_w / old_w, new_h / old_h] * 2)

    def onto(self, boxes: Tensor, index: int) -> Tensor:
        """Boxes of image ``index`` on the canvas."""
        return boxes * self._ratio(index, boxes) + self.border

    def back(self, boxes: Tensor, index: int) -> Tensor:
        """Boxes on the canvas as boxes of image ``index``, clipped into it."""
        plain = (boxes - self.border) / self._ratio(index, boxes)
        height, width = self.original[index]
        return torch.minimum(plain.clamp(min=0), plain.new_tensor([width, height] * 2))


def objects_of(targets: Sequence[Target], box: Letterbox) -> Objects:
    """All objects of a batch, on the canvas, classes from 0."""
    boxes = [box.onto(target["boxes"].float(), i) for i, target in enumerate(targets)]
    image = [torch.full_like(target["labels"], i) for i, target in enumerate(targets)]
    labels = [target["labels"] - 1 for target in targets]
    return Objects(torch.cat(boxes), torch.cat(labels), torch.cat(image))


def resized(image: Tensor, size: Size) -> Tensor:
    """Bilinear, with smoothing where it shrinks; ``[3, h, w]``."""
    if tuple(image.shape[-2:]) == size:
        return image
    shrinks = size[0] < image.shape[-2]
    return functional.interpolate(image[None], size, mode="bilinear", antialias=shrinks)[0]


def select(boxes: Tensor, scores: Tensor, config: OneStageConfig) -> Found:
    """Threshold and class-wise NMS of one image; a cell may give several classes.

    Args:
        boxes: ``[A, 4]`` x1 y1 x2 y2 in pixels of the canvas.
        scores: ``[A, classes]``, 0..1.
        config: thresholds.
    """
    cell, label = (scores > config.score_threshold).nonzero(as_tuple=True)
    score = scores[cell, label]
    order = score.argsort(descending=True, stable=True)[:CANDIDATES]
    cell, label, score = cell[order], label[order], score[order]
    keep = tensor_nms(boxes[cell], score, label, config.nms)[: config.max_detections]
    return Found(boxes=boxes[cell[keep]], scores=score[keep], labels=label[keep] + 1)


def tensor_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """As `class_nms`; on a GPU by torchvision, whose import takes longer than an image on a CPU."""
    if boxes.is_cuda:
        from torchvision import ops

        kept: Tensor = ops.batched_nms(boxes, scores, labels, iou)
        return kept
    plain = [each.detach().cpu().numpy() for each in (boxes, scores, labels)]
    return torch.from_numpy(class_nms(plain[0], plain[1], plain[2], iou)).to(boxes.device)


def centres_in(grids: Sequence[Size], strides: Sequence[int], regions: Tensor) -> Tensor:
    """Cells whose centre lies in one of the half-open regions ``[m, 4]``: bool ``[A]``."""
    covered = []
    for (rows, columns), stride in zip(grids, strides, strict=True):
        y, x = (
            (torch.arange(side, device=regions.device)[:, None] + 0.5) * stride
            for side in (rows, columns)
        )
        high = (y >= regions[:, 1]) & (y < regions[:, 3])  # [rows, m]
        wide = (x >= regions[:, 0]) & (x < regions[:, 2])  # [columns, m]
        covered.append((high.float() @ wide.float().T > 0).flatten())
    return torch.cat(covered)


def ignored_cells(
    targets: Sequence[Target], box: Letterbox, grids: Sequence[Size], strides: Sequence[int]
) -> Tensor:
    """Cells whose centre lies in an ignored region of their image: bool ``[B, A]``."""
    regions = (box.onto(target["ignore"], i) for i, target in enumerate(targets))
    return torch.stack([centres_in(grids, strides, one) for one in regions])


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes ``[..., 4]`` with boxes of the same shape, ``[...]``; 0 where both are empty."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    iou: Tensor = inter / (area - inter).clamp(min=1e-9)
    return iou


def pooled(x: Tensor) -> Tensor:
    """``[B, c, h, w]`` and three 5x5 max-pools of it in a row: ``[B, 4c, h, w]``."""
    levels = [x]
    for _ in range(3):
        levels.append(functional.max_pool2d(levels[-1], 5, 1, 2))
    return torch.cat(levels, 1)


class OneStage(DetectionNet):
    """A network that says for every cell of its input which object is there."""

    config: OneStageConfig
    resizable = True

    @abstractmethod
    def predictions(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded boxes and scores, without NMS; what is exported.

        Args:
            images: ``[B, 3, H, W]`` RGB 0..1, sides multiples of 32.

        Returns:
            ``[B, A, 4]`` boxes in pixels of the input, ``[B, A, classes]`` scores 0..1.
        """

    def detect(self, images: Sequence[Tensor]) -> list[Found]:
        """See `DetectionNet.detect`."""
        box = self.letterbox(images)
        found = (
            select(*one, self.config) for one in zip(*self.predictions(box.canvas), strict=True)
        )
        return [Found(**{**one, "boxes": box.back(one["boxes"], i)}) for i, one in enumerate(found)]

    def letterbox(self, images: Sequence[Tensor], *, shared: bool = False) -> Letterbox:
        """Images on a canvas in the memory order of the weights; a mixture of both is slow.

        See `Letterbox` for ``shared``.
        """
        weight = next(weight for weight in self.parameters() if weight.ndim == 4)
        last = weight.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last else torch.contiguous_format
        return Letterbox(images, self.config, order, shared=shared)

    def input_shape(self, size: Size) -> Size:
        """See `DetectionNet.input_shape`."""
        return canvas_size(scaled_size(size, self.config), self.config)

    def at_side(self, side: int) -> Self:
        """See `DetectionNet.at_side`."""
        other = copy(self)
        other.config = replace(self.config, input_size=side)
        return other

    @property
    def input_scaling(self) -> dict[str, Any]:
        """RGB 0..1 on a grey canvas."""
        size = {"input_size": self.config.input_size, "border": self.config.border, "grey": GREY}
        return {"order": "RGB", "range": [0, 1], **size}
