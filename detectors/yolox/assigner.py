"""Which cells learn which object: SimOTA.

Only cells whose centre is less than 1.5 strides from an object's centre, in rows and in columns,
are candidates: the 3x3 cells around it on each level. So every object has at most 9 candidates a
level, and time and memory grow with the number of objects alone.

Source: Ge et al., "YOLOX" (arXiv 2107.08430), section 2.2. (The published code counts, for the
number of cells of an object, the IoU of other objects' candidates too; here only its own.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dmnet.core.records import Size
from dmnet.detectors.dense import Objects, paired_iou
from dmnet.detectors.yolox.body import STRIDES

IOU_WEIGHT = 3.0
"""Weight of the box's cost beside that of the class."""

TOP = 10
"""An object gets as many cells as the sum of its so many greatest IoUs says, at least one."""


class Positives(NamedTuple):
    """Cells that learn an object; each cell of an image at most once."""

    image: Tensor
    """``[P]`` position of the image in the batch."""

    cell: Tensor
    """``[P]`` index of the cell."""

    object: Tensor
    """``[P]`` row of `Objects`."""

    iou: Tensor
    """``[P]`` IoU of the predicted box with the object: the class score to learn."""


def candidates(boxes: Tensor, grids: Sequence[Size]) -> tuple[Tensor, Tensor]:
    """The cells around the centre of each box on each level.

    Args:
        boxes: ``[N, 4]`` in pixels.
        grids: rows and columns of the levels.

    Returns:
        Index of the cell, and whether there is such a cell; both ``[N, 9 * levels]``.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = torch.arange(-1, 2, device=boxes.device)
    step = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), -1).reshape(-1, 2)  # x, y
    cells, there, offset = [], [], 0
    for (rows, columns), stride in zip(grids, STRIDES, strict=True):
        place = (centre / stride).floor().long()[:, None] + step  # [N, 9, 2]
        x, y = place.unbind(-1)
        there.append((x >= 0) & (x < columns) & (y >= 0) & (y < rows))
        cells.append((offset + y * columns + x).where(there[-1], 0))
        offset += rows * columns
    return torch.cat(cells, 1), torch.cat(there, 1)


def class_cost(logits: Tensor, objectness: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of sqrt(class score * objectness) with the object's class, ``[N, K]``.

    Args:
        logits: ``[N, K, C]`` of the candidates, before the sigmoid.
        objectness: ``[N, K]``, before the sigmoid.
        labels: ``[N]`` class index from 0.
    """
    score = (logits.sigmoid() * objectness.sigmoid()[..., None]).sqrt()
    wanted = functional.one_hot(labels, logits.shape[-1])[:, None].to(score.dtype)
    entropy = functional.binary_cross_entropy(score, wanted.expand_as(score), reduction="none")
    return entropy.sum(-1)


@torch.no_grad()
def simota(
    logits: Tensor, objectness: Tensor, boxes: Tensor, objects: Objects, grids: Sequence[Size]
) -> Positives:
    """Give each object its candidates of least cost, as many as its greatest IoUs sum up to.

    The cost is that of the class + 3 * -log(IoU). A cell wanted by several objects goes to the one
    of least cost.

    Args:
        logits: ``[B, A, C]`` predicted classes before the sigmoid.
        objectness: ``[B, A]`` before the sigmoid.
        boxes: ``[B, A, 4]`` predicted boxes in pixels.
        objects: what is in the images.
        grids: rows and columns of the levels.
    """
    cell, there = candidates(objects.boxes, grids)
    place = objects.image[:, None] * boxes.shape[1] + cell  # [N, K], in the whole batch
    own = boxes.flatten(0, 1)[place]
    iou = paired_iou(own, objects.boxes[:, None].expand_as(own)) * there
    cost = class_cost(logits.flatten(0, 1)[place], objectness.flatten()[place], objects.labels)
    cost = (cost - IOU_WEIGHT * (iou + 1e-8).log()).masked_fill(~there, torch.inf)
    count = iou.topk(min(TOP, iou.shape[1]), 1).values.sum(1).long().clamp(min=1)  # [N]
    rank = cost.argsort(dim=1, stable=True).argsort(dim=1)
    row, column = ((rank < count[:, None]) & there).nonzero(as_tuple=True)
    won = least(place[row, column], cost[row, column], boxes.shape[0] * boxes.shape[1])
    row, column = row[won], column[won]
    return Positives(objects.image[row], cell[row, column], row, iou[row, column])


def least(place: Tensor, cost: Tensor, places: int) -> Tensor:
    """Positions of the rows of least cost at each place, in order; of equal ones the first."""
    lowest = cost.new_full((places,), torch.inf).scatter_reduce(0, place, cost, "amin")
    able = (cost <= lowest[place]).nonzero()[:, 0]
    first = torch.full((places,), len(place), device=place.device)
    first = first.scatter_reduce(0, place[able], able, "amin")
    return able[first[place[able]] == able]
