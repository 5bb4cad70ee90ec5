"""SimOTA on boxes that can be worked out by hand, and beside a plain loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dmnet.detectors.dense import Objects
from dmnet.detectors.yolox.assigner import candidates, class_cost, least, simota
from dmnet.detectors.yolox.body import cells_of, to_boxes

GRIDS = ((8, 8), (4, 4), (2, 2))
"""An input of 64 x 64 pixels."""


def objects(boxes: object, labels: object, image: object) -> Objects:
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(image, dtype=torch.int64),
    )


def test_candidates_are_the_cells_around_the_centre() -> None:
    cell, there = candidates(torch.tensor([[8.0, 16, 24, 24], [60.0, 60, 64, 64]]), GRIDS)
    assert cell.shape == (2, 27)
    # centre (16, 20): column 2, row 2 at stride 8; column 1, row 1 at 16; column 0, row 0 at 32
    assert cell[0, :9].tolist() == [9, 10, 11, 17, 18, 19, 25, 26, 27]
    assert (cell[0, 9:18] - 64).tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert there[0, :18].all()
    assert (cell[0, 18:][there[0, 18:]] - 80).tolist() == [0, 1, 2, 3]
    assert there[1].view(3, 9).sum(1).tolist() == [4, 4, 4]  # in a corner


def test_candidates_are_closer_than_one_and_a_half_strides() -> None:
    boxes = torch.rand(50, 2).mul(63).repeat(1, 2) + torch.tensor([0.0, 0, 1, 1])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells = cells_of(GRIDS, boxes.device)
    middle = (cells.corners + 0.5) * cells.strides
    near = (middle - centre[:, None]).abs().amax(2) < 1.5 * cells.strides[:, 0]  # [50, A]
    cell, there = candidates(boxes, GRIDS)
    found = torch.zeros_like(near).scatter_(1, cell.where(there, cell[:, 4:5]), True)
    assert torch.equal(found, near)


def test_class_cost_by_hand() -> None:
    logits = torch.tensor([[[0.0, -100.0]]])  # scores 1/2 and 0
    cost = class_cost(logits, torch.tensor([[0.0]]), torch.tensor([0]))  # sqrt(1/2 * 1/2) = 1/2
    assert cost.item() == pytest.approx(-math.log(0.5))


def test_least_takes_the_first_of_equals() -> None:
    place = torch.tensor([3, 5, 3, 5, 5])
    cost = torch.tensor([2.0, 1.0, 1.0, 1.0, 4.0])
    assert least(place, cost, 6).tolist() == [1, 2]


def scores(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """All cells alike: boxes of their stride, every class and objectness 1/2."""
    cells = cells_of(GRIDS, torch.device("cpu"))
    raw = torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(batch, 84, 4)
    return torch.zeros(batch, 84, 2), torch.zeros(batch, 84), to_boxes(raw, cells)


def test_a_perfect_box_takes_the_object_alone() -> None:
    found = simota(*scores(1), objects([[16, 16, 24, 24]], [0], [0]), GRIDS)
    # row 2, column 2 at stride 8 has IoU 1, its neighbours 0; strides 16, 32: 1/4 and 1/16
    assert found.cell.tolist() == [18] and found.iou.tolist() == [1.0]
    assert found.object.tolist() == [0] and found.image.tolist() == [0]


def test_an_object_that_nothing_fits_still_gets_a_cell() -> None:
    found = simota(*scores(1), objects([[10, 10, 11, 11]], [1], [0]), GRIDS)
    assert len(found.cell) == 1


def test_a_cell_wanted_twice_goes_to_the_cheaper() -> None:
    pair = objects([[16, 16, 24, 24], [16, 16, 24, 20]], [0, 0], [0, 0])
    found = simota(*scores(1), pair, GRIDS)
    assert found.cell.tolist() == [18] and found.object.tolist() == [0]


def test_empty_batch() -> None:
    found = simota(*scores(2), objects([], [], []), GRIDS)
    assert [len(column) for column in found] == [0, 0, 0, 0]


def by_loops(
    logits: Tensor, objectness: Tensor, boxes: Tensor, these: Objects
) -> dict[tuple[int, int], int]:
    """(image, cell) -> object, one at a time."""
    cells = cells_of(GRIDS, boxes.device)
    middle = (cells.corners + 0.5) * cells.strides
    wanted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for row, (box, label, image) in enumerate(zip(*these, strict=True)):
        centre = (box[:2] + box[2:]) / 2
        near = ((middle - centre).abs() < 1.5 * cells.strides).all(1).nonzero()[:, 0].tolist()
        costs, ious = [], []
        for cell in near:
            own = boxes[image, cell]
            inter = (torch.minimum(own[2:], box[2:]) - torch.maximum(own[:2], box[:2])).clamp(min=0)
            union = (own[2:] - own[:2]).prod() + (box[2:] - box[:2]).prod() - inter.prod()
            iou = (inter.prod() / union).item()
            score = (logits[image, cell].sigmoid() * objectness[image, cell].sigmoid()).sqrt()
            entropy = -sum(
                math.log(float(s) if c == label else 1 - float(s)) for c, s in enumerate(score)
            )
            costs.append(entropy - 3 * math.log(iou + 1e-8))
            ious.append(iou)
        count = max(1, int(sum(sorted(ious, reverse=True)[:10])))
        for place in sorted(range(len(near)), key=costs.__getitem__)[:count]:
            wanted.setdefault((int(image), near[place]), []).append((costs[place], row))
    return {place: min(offers)[1] for place, offers in wanted.items()}


def test_a_crowd_as_by_loops() -> None:
    random = torch.Generator().manual_seed(1)
    logits, objectness = torch.randn(2, 84, 3, generator=random), torch.randn(2, 84)
    cells = cells_of(GRIDS, logits.device)
    raw = torch.rand(2, 84, 4, generator=random) * torch.tensor([1, 1, 2, 2]) - torch.tensor(
        [0, 0, 0.5, 0.5]
    )
    boxes = to_boxes(raw, cells)
    low = torch.rand(60, 2, generator=random) * 50
    crowd = torch.cat([low, low + 2 + torch.rand(60, 2, generator=random) * 30], 1)
    these = objects(crowd.tolist(), [i % 3 for i in range(60)], [i // 30 for i in range(60)])
    found = simota(logits, objectness, boxes, these, GRIDS)
    got: dict[tuple[int, int], Any] = {
        (image, cell): row
        for image, cell, row in zip(*(c.tolist() for c in found[:3]), strict=True)
    }
    assert len(got) == len(found.cell) > 40
    assert got == by_loops(logits, objectness, boxes, these)
