"""Which anchors and proposals of an image Faster R-CNN learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from dmnet.detectors.base import Target


class ImageSampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]
    """torchvision's sampler, drawing for each image from the ``seed`` of its target.

    So neither the other images of a batch nor the number of processes change what is drawn. Targets
    without a seed draw from torch's global generator.

    Attributes:
        targets: of the images that come next.
        drawn: how many rows of all images were drawn last.
    """

    def __init__(self, count: int, positive: float, stream: int) -> None:
        """Keep the settings.

        Args:
            count: rows an image.
            positive: share of them that are objects, at most.
            stream: samplers of different streams draw differently.
        """
        super().__init__(count, positive)
        self.stream, self.drawn = stream, 0
        self.targets: Sequence[Target] = ()

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the drawn objects and of the drawn background, ``[n]`` uint8 an image.

        Args:
            matched_idxs: ``[n]`` an image: above 0 object, 0 background, below 0 neither.
        """
        positives, negatives = [], []
        for labels, target in zip(matched_idxs, self.targets, strict=True):
            generator = self._generator(target, labels.device)
            most = int(self.batch_size_per_image * self.positive_fraction)
            positives.append(draw(labels >= 1, most, generator))
            rest = self.batch_size_per_image - int(positives[-1].sum())
            negatives.append(draw(labels == 0, rest, generator))
        self.drawn = sum(int(mask.sum()) for mask in positives + negatives)
        return positives, negatives

    def _generator(self, target: Target, device: torch.device) -> torch.Generator | None:
        if "seed" not in target:
            return None
        return torch.Generator(device).manual_seed(int(target["seed"]) + self.stream)


def draw(mask: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """At most ``count`` of the rows of a mask ``[n]``, as a mask uint8.

    >>> draw(torch.tensor([True, False, True]), 5, None)
    tensor([1, 0, 1], dtype=torch.uint8)
    """
    rows = torch.where(mask)[0]
    order = torch.randperm(len(rows), generator=generator, device=mask.device)
    drawn = torch.zeros_like(mask, dtype=torch.uint8)
    drawn[rows[order[:count]]] = 1
    return drawn
