"""The detection loss of a batch: weighs and adds what `losses` defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dmnet.core.training.processes import shared_count
from dmnet.detectors.dense import Objects
from dmnet.detectors.yolov6 import losses
from dmnet.detectors.yolov6.assigner import Positives
from dmnet.detectors.yolov6.head import Cells, Outputs, by_side

CLASS_WEIGHT, BOX_WEIGHT, SIDE_WEIGHT = 1.0, 2.5, 0.5
"""Of varifocal loss, box loss and DFL."""

BoxLoss = Callable[[Tensor, Tensor], Tensor]
BOX_LOSSES: dict[str, BoxLoss] = {"siou": losses.siou, "giou": losses.giou}


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


def detection_losses(batch: Batch, box_loss: BoxLoss, bins: int) -> dict[str, Tensor]:
    """``loss_classes``, ``loss_boxes`` and, with bins, ``loss_sides``: weighted scalars.

    Everything is divided by the sum of the scores to learn; positives weigh as their score.
    Background in ignored regions has no class loss.
    """
    logits, positives, objects = batch.outputs.logits, batch.positives, batch.objects
    image, cell, row, score = positives
    target = torch.zeros_like(logits)
    target[image, cell, objects.labels[row]] = score
    background = batch.ignored.clone()
    background[image, cell] = False
    classes = losses.varifocal(logits, target).masked_fill(background[..., None], 0.0)
    total = shared_count(positives.score.sum())
    boxes = box_loss(batch.boxes[image, cell], objects.boxes[row])
    found = {
        "loss_classes": CLASS_WEIGHT * classes.sum() / total,
        "loss_boxes": BOX_WEIGHT * (boxes * score).sum() / total,
    }
    if bins:
        sides = by_side(batch.outputs.sides[image, cell], bins)
        wanted = true_distances(objects.boxes[row], batch.cells, cell)
        loss = losses.distribution_focal(sides, wanted).mean(1)
        found["loss_sides"] = SIDE_WEIGHT * (loss * score).sum() / total
    return found


def true_distances(boxes: Tensor, cells: Cells, cell: Tensor) -> Tensor:
    """Distances from cells to the sides of boxes ``[n, 4]``, in strides."""
    centre, stride = cells.centres[cell], cells.strides[cell]
    return torch.cat([centre - boxes[:, :2], boxes[:, 2:] - centre], 1) / stride


def distillation_losses(
    student: Outputs, teacher: Outputs, positives: Positives, bins: int, weight: float
) -> dict[str, Tensor]:
    """``loss_distil_classes`` and, with bins, ``loss_distil_sides``: KL, times ``weight``.

    Classes over all cells, sides where there is an object; both divided by the number of those.
    """
    image, cell = positives.image, positives.cell
    count = shared_count(student.logits.new_tensor(float(len(cell))))
    found = {
        "loss_distil_classes": weight
        * losses.class_divergence(student.logits, teacher.logits).sum()
        / count
    }
    if bins:
        own, wanted = (by_side(out.sides[image, cell], bins) for out in (student, teacher))
        sides = losses.side_divergence(own, wanted).mean(1)
        found["loss_distil_sides"] = weight * sides.sum() / count
    return found
