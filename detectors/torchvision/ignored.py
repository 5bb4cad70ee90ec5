"""Torchvision's heads with ignored regions: places that are neither object nor background."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import ops
from torchvision.models.detection import fcos, retinanet, roi_heads, rpn

from dmnet.core.training.processes import shared_part
from dmnet.detectors.base import Target
from dmnet.detectors.torchvision.sampler import ImageSampler


def ignored_share(boxes: Tensor, regions: Tensor) -> Tensor:
    """Greatest share of each box's area inside one region, shape ``[n]``; 0 without regions."""
    if not len(regions):
        return boxes.new_zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)  # [n, m]
    share: Tensor = (inside / ops.box_area(boxes)[:, None].clamp(min=1e-6)).amax(1)
    return share


class Rpn(rpn.RegionProposalNetwork):  # type: ignore[misc]
    """Region proposals; anchors in ignored regions are neither object nor background."""

    ignore_share = 0.5

    def __init__(self, *args: Any) -> None:
        """As torchvision's; an image's sample of anchors is its own."""
        super().__init__(*args)
        self.fg_bg_sampler = ImageSampler(256, 0.5, stream=0)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels of torchvision (1, 0, -1) with -1 for background in ignored regions."""
        self.fg_bg_sampler.targets = targets
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            covered = ignored_share(anchor, target["ignore"]) >= self.ignore_share
            label[covered & (label == 0)] = -1
        return labels, matched

    def compute_loss(
        self,
        objectness: Tensor,
        deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Losses of the sampled anchors; 0 where every anchor is in an ignored region.

        They are means over the sampled anchors of all processes.
        """
        if all(bool((label < 0).all()) for label in labels):
            shared_part(objectness.new_zeros(()))  # the other processes wait for this
            return objectness.sum() * 0, deltas.sum() * 0
        found, placed = super().compute_loss(objectness, deltas, labels, regression_targets)
        part = shared_part(found.new_tensor(float(self.fg_bg_sampler.drawn)))
        return found * part, placed * part


class RoiHeads(roi_heads.RoIHeads):  # type: ignore[misc]
    """Second stage of Faster R-CNN; proposals in ignored regions are not sampled."""

    ignore_share = 0.5
    fg_bg_sampler: Any

    def __init__(self, *args: Any) -> None:
        """As torchvision's; an image's sample of proposals is its own."""
        super().__init__(*args)
        drawn = self.fg_bg_sampler
        self.fg_bg_sampler = ImageSampler(
            drawn.batch_size_per_image, drawn.positive_fraction, stream=1
        )

    def select_training_samples(self, proposals: list[Tensor], targets: list[Target]) -> Any:
        """Keep the ignored regions at hand for `assign_targets_to_proposals`."""
        self.regions = [target["ignore"] for target in targets]
        self.fg_bg_sampler.targets = targets
        samples = super().select_training_samples(proposals, targets)
        self.sampled = sum(len(boxes) for boxes in samples[0])
        return samples

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Torchvision's, with losses 0 where every proposal is in an ignored region.

        They are means over the sampled proposals of all processes.
        """
        detections, losses = super().forward(*args, **kwargs)
        if not self.training:
            return detections, losses
        part = shared_part(next(self.parameters()).new_tensor(float(self.sampled)))
        if self.sampled:
            return detections, {name: loss * part for name, loss in losses.items()}
        zero = torch.stack([p.sum() for p in self.parameters()]).sum() * 0
        return detections, {name: zero for name in losses}

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels of torchvision with -1 for background in ignored regions."""
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for label, boxes, regions in zip(labels, proposals, self.regions, strict=True):
            covered = ignored_share(boxes, regions.to(boxes.dtype)) >= self.ignore_share
            label[covered & (label == 0)] = -1
        return matched, labels


def silence_ignored(
    outputs: dict[str, Tensor],
    anchors: list[Tensor],
    matched: list[Tensor],
    targets: list[Target],
    share: float,
) -> dict[str, Tensor]:
    """A head's outputs, its ``cls_logits`` ``[B, A, C]`` without loss on ignored background.

    The focal loss of a negative at a logit of -100 is exactly 0, and so is its gradient.
    """
    covered = torch.stack(
        [
            (ignored_share(boxes, target["ignore"]) >= share) & (index < 0)
            for boxes, index, target in zip(anchors, matched, targets, strict=True)
        ]
    )
    logits = outputs["cls_logits"].masked_fill(covered[..., None], -100.0)
    return {**outputs, "cls_logits": logits}


class _Deaf:
    """A head whose loss does not count background in ignored regions."""

    ignore_share = 0.5

    def compute_loss(
        self,
        targets: list[Target],
        outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched: list[Tensor],
    ) -> dict[str, Tensor]:
        """The losses of the head itself, once `silence_ignored` has been at its outputs."""
        heard = silence_ignored(outputs, anchors, matched, targets, self.ignore_share)
        losses: dict[str, Tensor] = super().compute_loss(targets, heard, anchors, matched)  # type: ignore[misc]
        return losses


class RetinaHead(_Deaf, retinanet.RetinaNetHead):  # type: ignore[misc]
    """RetinaNet's head: focal loss and L1 on matched anchors."""


class FcosHead(_Deaf, fcos.FCOSHead):  # type: ignore[misc]
    """FCOS's head: focal loss, GIoU and centre-ness on matched points."""

    def compute_loss(self, *given: Any) -> dict[str, Tensor]:
        """The losses over the points of all processes."""
        losses = super().compute_loss(*given)
        points = torch.stack([(index >= 0).sum() for index in given[-1]]).sum().float()
        part = shared_part(points)
        return {name: loss * part for name, loss in losses.items()}
