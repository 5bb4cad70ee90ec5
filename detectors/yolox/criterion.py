"""The detection loss of a batch.

Source: Ge et al., "YOLOX" (arXiv 2107.08430), sections 2.1-2.2, and its published code for the
weights: IoU loss times 5, cross-entropy of objectness and classes, and L1 in the last epochs, all
divided by the number of positives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dmnet.core.training.processes import shared_count
from dmnet.detectors.dense import Objects, paired_iou
from dmnet.detectors.yolox.assigner import Positives
from dmnet.detectors.yolox.body import Cells, Outputs

BOX_WEIGHT = 5.0


class Batch(NamedTuple):
    """Predictions of a batch and what they are to learn."""

    outputs: Outputs
    boxes: Tensor
    """``[B, A, 4]`` the predicted boxes in pixels."""
    objects: Objects
    positives: Positives
    cells: Cells
    ignored: Tensor
    """``[B, A]`` cells whose centre lies in an ignored region."""


def detection_losses(batch: Batch, *, l1: bool) -> dict[str, Tensor]:
    """``loss_boxes``, ``loss_objects``, ``loss_classes`` and, if wanted, ``loss_sides``.

    A positive's class score to learn is the IoU of its box. Background in ignored regions has no
    loss.
    """
    image, cell, row, iou = batch.positives
    outputs, wanted = batch.outputs, batch.objects.boxes[row]
    total = shared_count(torch.tensor(float(len(cell)), device=iou.device))
    logits = outputs.logits[image, cell]
    score = functional.one_hot(batch.objects.labels[row], logits.shape[-1]) * iou[:, None]
    boxes = 1 - paired_iou(batch.boxes[image, cell], wanted).square()
    found = {
        "loss_boxes": BOX_WEIGHT * boxes.sum() / total,
        "loss_objects": objectness_loss(outputs.objectness, image, cell, batch.ignored) / total,
        "loss_classes": entropy(logits, score).sum() / total,
    }
    if l1:
        raw = raw_boxes(wanted, batch.cells, cell)
        found["loss_sides"] = (outputs.boxes[image, cell] - raw).abs().sum() / total
    return found


def entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with scores 0..1, element by element."""
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def objectness_loss(logits: Tensor, image: Tensor, cell: Tensor, ignored: Tensor) -> Tensor:
    """Cross-entropy of ``[B, A]``: 1 at the positives, nothing in ignored background; its sum."""
    target = torch.zeros_like(logits)
    target[image, cell] = 1.0
    loss: Tensor = entropy(logits, target).masked_fill(ignored & (target == 0), 0.0).sum()
    return loss


def raw_boxes(boxes: Tensor, cells: Cells, cell: Tensor) -> Tensor:
    """What cells ``[n]`` have to predict for boxes ``[n, 4]``; inverse of `body.to_boxes`."""
    stride, corner = cells.strides[cell], cells.corners[cell]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    return torch.cat([centre / stride - corner, (side / stride).log()], 1)
