"""Class-wise NMS: by hand, and against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision import ops

from dmnet.detectors.nms import class_nms


def boxes_of(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_by_hand() -> None:
    boxes = boxes_of([0, 0, 10, 10], [0, 0, 10, 5], [1, 0, 11, 10], [50, 50, 60, 60])
    scores = np.array([0.8, 0.9, 0.7, 0.1])
    one, two = np.zeros(4, np.int64), np.array([0, 0, 1, 0])
    assert class_nms(boxes, scores, one, 0.5).tolist() == [1, 0, 3]  # an IoU of .5 is not above it
    assert class_nms(boxes, scores, one, 0.49).tolist() == [1, 2, 3]
    assert class_nms(boxes, scores, two, 0.49).tolist() == [1, 2, 3]
    assert class_nms(boxes, scores, two, 1.0).tolist() == [1, 0, 2, 3]


def test_nothing_and_equal_scores() -> None:
    none = np.zeros(0, np.int64)
    assert class_nms(boxes_of(), np.zeros(0), none, 0.5).tolist() == []
    boxes = boxes_of(*[[20 * i, 0, 20 * i + 10, 10] for i in range(5)])
    kept = class_nms(boxes, np.full(5, 0.5), np.zeros(5, np.int64), 0.5)
    assert kept.tolist() == [0, 1, 2, 3, 4]


def test_boxes_without_bounds_do_no_harm() -> None:
    boxes = boxes_of([0, 0, 10, 10], [0, 0, float("inf"), 10], [float("nan"), 0, 5, 5])
    kept = class_nms(boxes, np.array([0.1, 0.2, 0.3]), np.array([0, 1, 2]), 0.5)
    assert kept.tolist() == [2, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_as_torchvision(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(600, 2, generator=random) * 200
    boxes = torch.cat([corner, corner + 5 + 40 * torch.rand(600, 2, generator=random)], 1)
    scores = torch.rand(600, generator=random)
    labels = torch.randint(0, 4, (600,), generator=random)
    for iou in (0.3, 0.65):
        expected = ops.batched_nms(boxes, scores, labels, iou)
        plain = (boxes.numpy(), scores.numpy(), labels.numpy())
        assert class_nms(*plain, iou).tolist() == expected.tolist()
