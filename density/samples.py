"""Training pairs of a density network: read lazily, cut, flipped and rescaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dmnet.core.errors import ConfigError, InputError
from dmnet.core.images import read_image
from dmnet.core.records import DensityMap, Image
from dmnet.core.training import item_rng
from dmnet.density.networks import Scaling

STRIDE = 4
"""Pixels of a side of a target cell."""

Cells = NDArray[np.float32]
"""``(h, w)`` float32, objects per cell."""


@dataclass(frozen=True)
class Sample:
    """One training image: its file, and a function that reads its density map when it is needed."""

    image: Path
    density: Callable[[], DensityMap]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a pair: ``crop`` pixels a side (0: whole image), flips, scale jitter.

    The sides of whole images are padded to a multiple of ``multiple`` pixels.
    """

    crop: int = 256
    flips: bool = True
    scale_jitter: float = 0.25
    multiple: int = STRIDE


def target(density: DensityMap) -> DensityMap:
    """The map at stride 4; a full-size one is sum-pooled, so the count is kept.

    Raises:
        ConfigError: the map has another stride than 1 or 4.
    """
    if density.stride == STRIDE:
        return density
    if density.stride != 1:
        raise ConfigError(
            f"training needs density maps at stride 1 or {STRIDE}, got {density.stride}: "
            "make them again with another density.stride"
        )
    return density.pooled(STRIDE)


def augment(
    image: Image, cells: Cells, how: Augmentation, mean: float, rng: np.random.Generator
) -> tuple[Image, Cells]:
    """Cut the same random window from image and map, rescale and flip both.

    Args:
        image: ``(h, w, 3)`` uint8.
        cells: ``(ceil(h / 4), ceil(w / 4))`` float32; the sum of a window is kept by rescaling.
        how: the settings; with ``crop`` 0 the image is only padded to whole cells and flipped.
        mean: value of the padding.
        rng: source of every random choice.

    Returns:
        image ``(crop, crop, 3)`` and cells ``(crop / 4, crop / 4)``.
    """
    if not how.crop:
        step = how.multiple // STRIDE
        cells = np.pad(cells, [(0, -side % step) for side in cells.shape])
    image = _padded_image(image, cells.shape[0] * STRIDE, cells.shape[1] * STRIDE, mean)
    if how.crop:
        side = how.crop // STRIDE
        jitter = np.log1p(how.scale_jitter)
        take = max(1, round(side / float(np.exp(rng.uniform(-jitter, jitter)))))
        image, cells = _window(image, cells, take, mean, rng)
        image, cells = _resized(image, cells, side)
    if how.flips and rng.random() < 0.5:
        image, cells = image[:, ::-1], cells[:, ::-1]
    if how.flips and rng.random() < 0.5:
        image, cells = image[::-1], cells[::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(cells)


def _padded_image(image: Image, height: int, width: int, mean: float) -> Image:
    down, right = max(0, height - image.shape[0]), max(0, width - image.shape[1])
    if not (down or right):
        return image
    filled: Image = np.pad(image, [(0, down), (0, right), (0, 0)], constant_values=round(mean))
    return filled


def _window(
    image: Image, cells: Cells, take: int, mean: float, rng: np.random.Generator
) -> tuple[Image, Cells]:
    """Random window of ``take`` x ``take`` cells; a smaller image is padded."""
    down, right = (max(0, take - side) for side in cells.shape)
    cells = np.pad(cells, [(0, down), (0, right)])
    image = _padded_image(image, cells.shape[0] * STRIDE, cells.shape[1] * STRIDE, mean)
    top, left = (int(rng.integers(0, side - take + 1)) for side in cells.shape)
    pixels = (
        slice(top * STRIDE, (top + take) * STRIDE),
        slice(left * STRIDE, (left + take) * STRIDE),
    )
    return image[pixels], cells[top : top + take, left : left + take]


def _resized(image: Image, cells: Cells, side: int) -> tuple[Image, Cells]:
    """Resize to ``side`` cells; the sum of the cells is kept."""
    if len(cells) == side:
        return image, cells
    area = cv2.INTER_AREA if len(cells) > side else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(image, (side * STRIDE,) * 2, interpolation=area), np.uint8)
    resized = np.asarray(cv2.resize(cells, (side, side), interpolation=area), np.float32)
    total = resized.sum()
    return image, resized * (cells.sum() / total) if total > 0 else resized


def as_tensor(image: Image, scaling: Scaling) -> Tensor:
    """Scaled ``(3, h, w)`` float32 tensor of an ``(h, w, 3)`` uint8 image."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
    return pixels.sub_(scaling.mean).div_(scaling.std)


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Augmented pairs of one epoch; every item has its own generator, whatever the workers."""

    def __init__(
        self,
        samples: Sequence[Sample],
        how: Augmentation,
        scaling: Scaling,
        seed: int,
        epoch: int,
    ) -> None:
        """Keep the settings; nothing is read before an item is asked for."""
        self.samples, self.how, self.scaling = samples, how, scaling
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image ``(3, h, w)`` scaled, and target ``(1, h / 4, w / 4)`` in objects per cell.

        Raises:
            InputError: an unreadable image or map, or a map for an image of another size.
        """
        sample = self.samples[index]
        image, density = read_image(sample.image), target(sample.density())
        _same_size(sample.image, image, density)
        rng = item_rng(self.seed, self.epoch, index)
        image, cells = augment(image, density.values, self.how, self.scaling.mean, rng)
        return as_tensor(image, self.scaling), torch.from_numpy(cells)[None]


def _same_size(path: Path, image: Image, density: DensityMap) -> None:
    if image.shape[:2] != density.size:
        raise InputError(
            path,
            f"the image is {image.shape[0]}x{image.shape[1]} (h x w), its density map was made "
            f"for {density.size[0]}x{density.size[1]}",
        )
