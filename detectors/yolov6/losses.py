"""Loss functions, element by element; `criterion` weighs and adds them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def varifocal(logits: Tensor, target: Tensor, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Varifocal loss of the shape of ``logits``.

    Positives (``target`` > 0) weigh as much as their target, negatives alpha * score^gamma.

    Args:
        logits: predicted class scores before the sigmoid.
        target: scores to learn, 0..1; 0 is background.
        alpha: weight of the negatives.
        gamma: how much less easy negatives weigh.

    Source: Zhang et al., "VarifocalNet" (CVPR 2021), equation 2.
    """
    weight = torch.where(target > 0, target, alpha * logits.sigmoid().pow(gamma))
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return weight * entropy


def _overlap(a: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """IoU ``[n]``, union ``[n]`` and the sides of the enclosing box ``[n, 2]``."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inter
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    return inter / (union + eps), union, hull


def giou(predicted: Tensor, target: Tensor, eps: float = 1e-7) -> Tensor:
    """1 - generalised IoU of rows of boxes ``[n, 4]``, ``[n]``, 0..2.

    Source: Rezatofighi et al., "Generalized Intersection over Union" (CVPR 2019), algorithm 1.
    """
    iou, union, hull = _overlap(predicted, target, eps)
    area = hull.prod(1)
    return 1 - iou + (area - union) / (area + eps)


def siou(predicted: Tensor, target: Tensor, theta: float = 4.0, eps: float = 1e-7) -> Tensor:
    """SIoU loss of rows of boxes ``[n, 4]``, ``[n]``: 1 - IoU + (distance + shape) / 2.

    The distance cost counts more the less the centres lie along an axis (angle cost).

    Source: Gevorgyan, "SIoU Loss" (arXiv 2205.12740), equations 1-5.
    """
    iou, _, hull = _overlap(predicted, target, eps)
    shift = (target[:, :2] + target[:, 2:] - predicted[:, :2] - predicted[:, 2:]) / 2
    # sin(2 a) of the angle between the shift and an axis; equals 1 - 2 sin^2(arcsin(x) - pi/4)
    angle = 2 * shift.prod(1).abs() / (shift.square().sum(1) + eps)
    apart = (shift / (hull + eps)).square()
    distance = (1 - torch.exp((angle - 2)[:, None] * apart)).sum(1)
    own, wanted = predicted[:, 2:] - predicted[:, :2], target[:, 2:] - target[:, :2]
    unlike = (own - wanted).abs() / (torch.maximum(own, wanted) + eps)
    shape = (1 - torch.exp(-unlike)).pow(theta).sum(1)
    return 1 - iou + (distance + shape) / 2


def distribution_focal(sides: Tensor, target: Tensor) -> Tensor:
    """DFL: cross-entropy of the two bins around each distance, by nearness; ``[n, 4]``.

    Args:
        sides: ``[n, 4, bins + 1]`` logits.
        target: ``[n, 4]`` distances in strides; those beyond ``bins`` count as almost ``bins``.

    Source: Li et al., "Generalized Focal Loss" (NeurIPS 2020), equation 6.
    """
    bins = sides.shape[-1] - 1
    target = target.clamp(0, bins - 0.01)
    low = target.long()
    share = target - low
    logs = sides.log_softmax(-1)
    left = logs.gather(-1, low[..., None])[..., 0]
    right = logs.gather(-1, low[..., None] + 1)[..., 0]
    return -((1 - share) * left + share * right)


# --- distillation --------------------------------------------------------------------------------


def class_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of class scores, each class a coin of its own; of the shape of the logits.

    KL(teacher || student): 0 where they agree.
    """
    wanted = teacher.sigmoid()
    cross = functional.binary_cross_entropy_with_logits(student, wanted, reduction="none")
    own = functional.binary_cross_entropy_with_logits(teacher, wanted, reduction="none")
    return cross - own


def side_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of the distance distributions ``[..., bins + 1]``: ``[...]``."""
    logs = (student.log_softmax(-1), teacher.log_softmax(-1))
    return functional.kl_div(*logs, reduction="none", log_target=True).sum(-1)


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Channel-wise distillation of features ``[B, c, h, w]``: a scalar.

    Each channel is a distribution over the places; KL a channel, averaged.

    Source: Shu et al., "Channel-wise Knowledge Distillation" (ICCV 2021), equations 4-5.
    """
    own = (student.flatten(2) / temperature).log_softmax(-1)
    wanted = (teacher.flatten(2) / temperature).log_softmax(-1)
    return functional.kl_div(own, wanted, reduction="none", log_target=True).sum(-1).mean() * (
        temperature**2
    )


def cosine_decay(epoch: int, epochs: int, floor: float = 0.01) -> float:
    """Weight of the self-distillation: 1 in the first epoch, down to ``floor``, half a cosine.

    Source: YOLOv6 paper, section 3.5: soft labels help first, hard labels last.
    """
    if epochs <= 1:
        return 1.0
    return floor + (1 - floor) * (1 + math.cos(math.pi * epoch / (epochs - 1))) / 2
