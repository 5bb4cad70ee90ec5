"""Class-wise NMS. On a CPU through OpenCV, since importing torchvision takes longer than torch."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

FARTHEST = 1e6
"""Pixels; coordinates beyond are taken to be there."""


def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Positions of the boxes that stay, by descending score; equal scores keep their order.

    Args:
        boxes: ``[N, 4]`` x1 y1 x2 y2.
        scores: ``[N]``, finite.
        labels: ``[N]`` class numbers from 0; boxes of different classes leave each other alone.
        iou: a box goes where its IoU with a better one of its class is greater.

    >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8]])
    >>> class_nms(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.6)
    tensor([1, 2])
    """
    if boxes.is_cuda:
        from torchvision import ops

        kept: Tensor = ops.batched_nms(boxes, scores, labels, iou)
        return kept
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64)
    corners = np.nan_to_num(boxes.detach().double().cpu().numpy()).clip(-FARTHEST, FARTHEST)
    apart = labels.cpu().numpy()[:, None] * (corners.max() - corners.min() + 1)
    sides = corners[:, 2:] - corners[:, :2]
    rows = np.concatenate([corners[:, :2] + apart, sides], axis=1)
    ranks = np.empty(len(rows))  # OpenCV wants scores above 0
    order = np.argsort(-scores.detach().double().cpu().numpy(), kind="stable")
    ranks[order] = np.arange(len(rows), 0, -1)
    found = cv2.dnn.NMSBoxes(rows.tolist(), ranks.tolist(), 0.0, iou)
    return torch.as_tensor(np.asarray(found, np.int64).reshape(-1), device=boxes.device)
