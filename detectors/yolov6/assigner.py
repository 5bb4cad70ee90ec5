"""Which cells learn which object: task-aligned assignment (TAL), and ATSS for the warm-up.

Both work on pairs (object, cell) of the whole batch instead of dense objects x cells arrays: only
cells whose centre lies inside an object can learn it, and small objects hold few. Memory therefore
grows with the objects' area, not with their number, and is bounded by working through objects in
groups.

Sources: Feng et al., "TOOD" (ICCV 2021), equation 4; Zhang et al., "ATSS" (CVPR 2020), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dmnet.detectors.dense import Objects, paired_iou
from dmnet.detectors.yolov6.head import Cells

PAIRS = 1 << 22
"""Pairs that are looked at together."""

ANCHOR = 5.0
"""Side of the box that ATSS puts on a cell, in strides."""


class Positives(NamedTuple):
    """Cells that learn an object; each cell of an image at most once."""

    image: Tensor
    """``[P]`` position of the image in the batch."""

    cell: Tensor
    """``[P]`` index of the cell."""

    object: Tensor
    """``[P]`` row of `Objects`."""

    score: Tensor
    """``[P]`` the class score to learn, 0..1."""


def grown(boxes: Tensor, side: float) -> Tensor:
    """Boxes with sides of at least ``side``, about their centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).clamp(min=side) / 2
    return torch.cat([centre - half, centre + half], 1)


# --- pairs ---------------------------------------------------------------------------------------


def _spans(boxes: Tensor, cells: Cells) -> Tensor:
    """First row, first column, rows, columns of the cells inside, per level: ``[N, L, 4]``."""
    found = []
    for (rows, columns), stride in zip(cells.grids, cells.levels, strict=True):
        limit = boxes.new_tensor([columns, rows, columns, rows])
        edges = torch.minimum((boxes / stride - 0.5).ceil().clamp(min=0), limit).long()
        first, last = edges[:, :2].flip(1), edges[:, 2:].flip(1)
        found.append(torch.cat([first, (last - first).clamp(min=0)], 1))
    return torch.stack(found, 1)


def inside_pairs(boxes: Tensor, cells: Cells) -> Iterator[tuple[Tensor, Tensor]]:
    """Every (object, cell) whose centre lies in the half-open box, in groups of objects.

    Args:
        boxes: ``[N, 4]`` in pixels.
        cells: the cells of an image.

    Yields:
        Row of ``boxes`` and index of the cell, both ``[P]``, ordered by object, then cell; about
        `PAIRS` of them at most, and never a part of an object.
    """
    spans = _spans(boxes, cells)
    total = spans[..., 2:].prod(2).sum(1)  # [N]
    group = total.cumsum(0) // PAIRS
    for rows in _runs(group):
        yield _expand(spans[rows], cells, rows.start)


def _runs(group: Tensor) -> Iterator[slice]:
    """Slices of equal values of a sorted tensor."""
    _, counts = torch.unique_consecutive(group, return_counts=True)
    start = 0
    for count in counts.tolist():
        yield slice(start, start + count)
        start += count


def _expand(spans: Tensor, cells: Cells, first: int) -> tuple[Tensor, Tensor]:
    """Pairs of the spans ``[n, L, 4]`` of objects ``first``, ``first + 1``, ..."""
    columns = spans.new_tensor([grid[1] for grid in cells.grids])
    sizes = spans.new_tensor([rows * columns for rows, columns in cells.grids])
    offset = sizes.cumsum(0) - sizes
    count = spans[..., 2:].prod(2).flatten()  # [n * L]
    source = torch.repeat_interleave(count)  # [P]
    step = torch.arange(len(source), device=count.device) - (count.cumsum(0) - count)[source]
    row, column, _, width = spans.flatten(0, 1)[source].unbind(1)
    level = source % len(cells.grids)
    y, x = row + step // width, column + step % width
    return first + source // len(cells.grids), offset[level] + y * columns[level] + x


def nearest_pairs(boxes: Tensor, cells: Cells, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` cells of each level nearest to each box's centre.

    They lie within ``count`` steps of the cell that holds the centre, so only those are looked at.

    Returns:
        Row of ``boxes``, index of the cell and whether there is such a cell, each
        ``[N, levels * count]``: a level may have fewer cells.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = torch.arange(-count, count + 1, device=boxes.device)
    step = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2).flip(1)
    chosen, real, offset = [], [], 0
    for (rows, columns), stride in zip(cells.grids, cells.levels, strict=True):
        limit = torch.tensor([columns, rows], device=boxes.device)
        home = torch.minimum((centre / stride).long().clamp(min=0), limit - 1)
        place = home[:, None] + step  # [N, (2 * count + 1)^2, 2] x, y
        there = ((place >= 0) & (place < limit)).all(2)
        away = ((place + 0.5) * stride - centre[:, None]).square().sum(2)
        away, order = away.masked_fill(~there, torch.inf).sort(dim=1, stable=True)
        near = place.gather(1, order[:, :count, None].expand(-1, -1, 2))
        chosen.append(offset + near[..., 1] * columns + near[..., 0])
        real.append(away[:, :count].isfinite())
        offset += rows * columns
    cell, exists = torch.cat(chosen, 1), torch.cat(real, 1)
    row = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(cell)
    return row, cell.masked_fill(~exists, 0), exists


# --- assignment ----------------------------------------------------------------------------------


def _ranks(owner: Tensor, value: Tensor) -> Tensor:
    """Rank of each value among those of the same owner, greatest first, ties by position."""
    order = value.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    _, counts = torch.unique_consecutive(owner[order], return_counts=True)
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device) - start
    return ranks


def _most(owner: Tensor, value: Tensor, count: int) -> Tensor:
    """Greatest value of each of ``count`` owners, ``[count]``; 0 without any."""
    return value.new_zeros(count).scatter_reduce(0, owner, value, "amax")


@torch.no_grad()
def task_aligned(
    scores: Tensor,
    boxes: Tensor,
    objects: Objects,
    cells: Cells,
    *,
    top: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    min_side: float = 0.0,
) -> Positives:
    """TAL: an object goes to the ``top`` cells inside it of greatest score^alpha * IoU^beta.

    A cell wanted by several objects goes to the one of greatest IoU. The score to learn is the
    alignment, scaled so that an object's greatest is its greatest IoU.

    Args:
        scores: ``[B, A, C]`` predicted class scores, 0..1.
        boxes: ``[B, A, 4]`` predicted boxes in pixels.
        objects: what is in the images.
        cells: the A cells.
        top: cells an object at most.
        alpha: exponent of the score.
        beta: exponent of the IoU.
        min_side: objects count as at least this large when cells inside are looked for, pixels; at
            8 every object has a cell, while the paper (0) leaves out those between the centres.
    """
    parts = []
    for row, cell in inside_pairs(grown(objects.boxes, min_side), cells):
        image = objects.image[row]
        iou = paired_iou(boxes[image, cell], objects.boxes[row])
        metric = scores[image, cell, objects.labels[row]].pow(alpha) * iou.pow(beta)
        keep = _ranks(row, metric) < top
        parts.append((row[keep], cell[keep], iou[keep], metric[keep]))
    if not parts:
        return _nothing(boxes)
    row, cell, iou, metric = (torch.cat(column) for column in zip(*parts, strict=True))
    won = _winners(objects.image[row] * scores.shape[1] + cell, iou)
    row, cell, iou, metric = row[won], cell[won], iou[won], metric[won]
    best, reach = (_most(row, value, len(objects.boxes)) for value in (metric, iou))
    target = metric / best[row].clamp(min=1e-12) * reach[row]
    return Positives(objects.image[row], cell, row, target)


def _winners(place: Tensor, iou: Tensor) -> Tensor:
    """Positions of the pairs of greatest IoU at each place, in order."""
    return (_ranks(place, iou) == 0).nonzero()[:, 0]


def _nothing(like: Tensor) -> Positives:
    none = torch.zeros(0, dtype=torch.long, device=like.device)
    return Positives(none, none, none, like.new_zeros(0))


@torch.no_grad()
def adaptive(
    boxes: Tensor, objects: Objects, cells: Cells, *, top: int = 9, min_side: float = 0.0
) -> Positives:
    """ATSS: of the ``top`` nearest cells a level, those whose anchor overlaps more than usual.

    Usual is mean + standard deviation of the candidates' IoU with the object. The centre must lie
    inside, and a cell wanted by several objects goes to the one of greatest IoU. The score to learn
    is the IoU of the predicted box.

    Args:
        boxes: ``[B, A, 4]`` predicted boxes in pixels.
        objects: what is in the images.
        cells: the A cells.
        top: candidates a level.
        min_side: see `task_aligned`.
    """
    if not len(objects.boxes):
        return _nothing(boxes)
    row, cell, exists = nearest_pairs(objects.boxes, cells, top)
    half = cells.strides * (ANCHOR / 2)
    anchors = torch.cat([cells.centres - half, cells.centres + half], 1)
    iou = paired_iou(anchors[cell.flatten()], objects.boxes[row.flatten()]).view_as(exists)
    number = exists.sum(1, keepdim=True)
    mean = (iou * exists).sum(1, keepdim=True) / number
    spread = ((iou - mean).square() * exists).sum(1, keepdim=True) / (number - 1).clamp(min=1)
    room = grown(objects.boxes, min_side)[:, None]
    point = cells.centres[cell]
    inside = ((point >= room[..., :2]) & (point < room[..., 2:])).all(2)
    chosen = exists & inside & (iou >= mean + spread.sqrt())
    row, cell, iou = row[chosen], cell[chosen], iou[chosen]
    won = _winners(objects.image[row] * boxes.shape[1] + cell, iou)
    row, cell = row[won], cell[won]
    image = objects.image[row]
    return Positives(image, cell, row, paired_iou(boxes[image, cell], objects.boxes[row]))
