"""Class-wise NMS of arrays, through OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FARTHEST = 1e6
"""Pixels; coordinates beyond are taken to be there."""


def class_nms(
    boxes: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    iou: float,
) -> NDArray[np.int64]:
    """Positions of the boxes that stay, by descending score; equal scores keep their order.

    Args:
        boxes: ``[N, 4]`` x1 y1 x2 y2.
        scores: ``[N]``, finite.
        labels: ``[N]`` class numbers from 0; boxes of different classes leave each other alone.
        iou: a box goes where its IoU with a better one of its class is greater.

    >>> boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]])
    >>> class_nms(boxes, np.array([0.5, 0.9, 0.7]), np.array([0, 0, 1]), 0.6)
    array([1, 2])
    """
    if not len(boxes):
        return np.zeros(0, np.int64)
    corners = np.nan_to_num(boxes.astype(np.float64)).clip(-FARTHEST, FARTHEST)
    apart = labels[:, None] * (corners.max() - corners.min() + 1)
    sides = corners[:, 2:] - corners[:, :2]
    rows = np.concatenate([corners[:, :2] + apart, sides], axis=1)
    ranks = np.empty(len(rows))  # OpenCV wants scores above 0
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    ranks[order] = np.arange(len(rows), 0, -1)
    found = cv2.dnn.NMSBoxes(rows.tolist(), ranks.tolist(), 0.0, iou)
    return np.asarray(found, np.int64).reshape(-1)
