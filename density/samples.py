"""Training pairs of a density network: read and scaled once, cut, flipped and rescaled anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from dmnet.core.errors import ConfigError, InputError
from dmnet.core.images import read_image
from dmnet.core.records import DensityMap, Image
from dmnet.core.training.seeds import item_rng
from dmnet.density.scale import Scaling, rescaled, scaled_image, scaled_size
from dmnet.density.settings import AugmentConfig

Cells = NDArray[np.float32]
"""``(h, w)`` float32, objects per cell."""

Colour = float | tuple[float, ...]
"""One value 0..255 for all channels, or one for each."""


@dataclass(frozen=True)
class DensityPair:
    """An image file, and a function that reads its density map when it is needed."""

    image: Path
    density: Callable[[], DensityMap]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a pair: cut out ``crop`` pixels a side (0: whole image), and varied.

    The sides of whole images are padded to a multiple of ``multiple`` pixels; a cell of the target
    has ``stride`` pixels a side.
    """

    crop: int = 256
    vary: AugmentConfig = field(default_factory=AugmentConfig)
    multiple: int = 4
    stride: int = 4


def target(density: DensityMap, long_side: int = 0, stride: int = 4) -> DensityMap:
    """The map of the picture shrunk to ``long_side``, at ``stride``; the count is kept.

    Raises:
        ConfigError: the map is too coarse for it.
    """
    size = scaled_size(density.size, long_side)
    if density.stride * max(size) > stride * max(density.size):
        raise ConfigError(
            f"training at stride {stride} on images of their own size needs density maps at that "
            f"stride or a finer one, got {density.stride}: make them again with another "
            "density.stride"
        )
    return rescaled(density, size, stride)


def augment(
    image: Image, cells: Cells, how: Augmentation, mean: Colour, rng: np.random.Generator
) -> tuple[Image, Cells]:
    """Cut the same random window from image and map, rescale and flip both, change the light.

    Args:
        image: ``(h, w, 3)`` uint8.
        cells: ``(ceil(h / stride), ceil(w / stride))`` float32; rescaling keeps a window's sum.
        how: the settings; with ``crop`` 0 the image is only padded to whole cells and flipped.
        mean: colour of the padding, one value or three.
        rng: source of every random choice.

    Returns:
        image ``(crop, crop, 3)`` and cells ``(crop / stride, crop / stride)``.
    """
    if not how.crop:
        step = max(1, how.multiple // how.stride)
        cells = np.pad(cells, [(0, -side % step) for side in cells.shape])
    image = _padded_image(image, cells.shape[0] * how.stride, cells.shape[1] * how.stride, mean)
    if how.crop:
        side = how.crop // how.stride
        low, high = np.log(how.vary.zoom)
        take = max(1, round(side / float(np.exp(rng.uniform(low, high)))))
        image, cells = _window(image, cells, take, how.stride, mean, rng)
        image, cells = _resized(image, cells, side, how.stride)
    if how.vary.flip and rng.random() < how.vary.flip:
        image, cells = image[:, ::-1], cells[:, ::-1]
    if how.vary.flip_vertical and rng.random() < how.vary.flip_vertical:
        image, cells = image[::-1], cells[::-1]
    if how.vary.photometric:
        image = _relit(image, how.vary.photometric, rng)
    return np.ascontiguousarray(image), np.ascontiguousarray(cells)


def _padded_image(image: Image, height: int, width: int, mean: Colour) -> Image:
    """Make an image at least so large, adding to the bottom and the right."""
    tall, wide = max(height, image.shape[0]), max(width, image.shape[1])
    if (tall, wide) == image.shape[:2]:
        return image
    filled = np.broadcast_to(np.rint(mean).astype(np.uint8), (tall, wide, 3)).copy()
    filled[: image.shape[0], : image.shape[1]] = image
    return filled


def _relit(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Another brightness, contrast and tint: a factor around the middle grey and one a channel."""
    contrast, bright = rng.uniform(-strength, strength, 2)
    tint = rng.uniform(-strength / 4, strength / 4, 3)
    values = (np.arange(256)[:, None] - 128) * (1 + contrast) + 128 * (1 + bright)
    table = np.clip(np.rint(values * (1 + tint)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(image), table[None]), np.uint8)


def _window(
    image: Image,
    cells: Cells,
    take: int,
    stride: int,
    mean: Colour,
    rng: np.random.Generator,
) -> tuple[Image, Cells]:
    """Random window of ``take`` x ``take`` cells; a smaller image is padded."""
    down, right = (max(0, take - side) for side in cells.shape)
    cells = np.pad(cells, [(0, down), (0, right)])
    image = _padded_image(image, cells.shape[0] * stride, cells.shape[1] * stride, mean)
    top, left = (int(rng.integers(0, side - take + 1)) for side in cells.shape)
    pixels = (
        slice(top * stride, (top + take) * stride),
        slice(left * stride, (left + take) * stride),
    )
    return image[pixels], cells[top : top + take, left : left + take]


def _resized(image: Image, cells: Cells, side: int, stride: int) -> tuple[Image, Cells]:
    """Resize to ``side`` cells; the sum of the cells is kept."""
    if len(cells) == side:
        return image, cells
    area = cv2.INTER_AREA if len(cells) > side else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(image, (side * stride,) * 2, interpolation=area), np.uint8)
    resized = np.asarray(cv2.resize(cells, (side, side), interpolation=area), np.float32)
    total = resized.sum()
    return image, resized * (cells.sum() / total) if total > 0 else resized


class Shrunk:
    """Samples as they enter a network, but for augmentation: shrunk pictures and their targets.

    `fill` reads ahead in the process that calls it: loaders that are forked from it share the
    memory. What has no room is read again every time it is asked for, with the same result.
    """

    def __init__(self, samples: Sequence[DensityPair], long_side: int = 0, stride: int = 4) -> None:
        """Keep the settings; nothing is read before it is asked for."""
        self.samples, self.long_side, self.stride = samples, long_side, stride
        self._kept: dict[int, tuple[Image, Cells]] = {}
        self._filled = False

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image, Cells]:
        """Picture ``(h, w, 3)`` uint8 and objects per cell ``(ceil(h / s), ceil(w / s))``.

        Raises:
            InputError: an unreadable image or map, or a map for an image of another size.
            ConfigError: the map is too coarse.
        """
        return self._kept.get(index) or self._read(index)

    def fill(self, gigabytes: float) -> None:
        """Read samples in order, once, and keep them in memory, up to so much of it."""
        if self._filled:
            return
        self._filled, room = True, gigabytes * 1e9
        for index in tqdm(range(len(self)), desc="reading images", leave=False, disable=None):
            image, cells = self._read(index)
            room -= image.nbytes + cells.nbytes
            if room < 0:
                return
            self._kept[index] = image, cells

    def _read(self, index: int) -> tuple[Image, Cells]:
        sample = self.samples[index]
        image, density = read_image(sample.image), sample.density()
        _same_size(sample.image, image, density)
        cells = target(density, self.long_side, self.stride).values
        return scaled_image(image, self.long_side), cells


FILLER = -1.0
"""Target of a picture that only fills up a batch: it has no loss."""


class AugmentedPairs(Dataset[tuple[Tensor, Tensor]]):
    """Augmented pairs of one epoch; every item has its own generator, whatever the workers."""

    def __init__(
        self,
        samples: Shrunk,
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
        """Image ``(3, h, w)`` scaled, and target ``(1, h / s, w / s)`` in objects per cell.

        Of ``~index``, which only fills up a batch, all of the target is `FILLER`.

        Raises:
            InputError: an unreadable image or map, or a map for an image of another size.
            ConfigError: the map is too coarse.
        """
        if index < 0:
            pixels, objects = self[~index]
            return pixels, torch.full_like(objects, FILLER)
        image, cells = self.samples[index]
        rng = item_rng(self.seed, self.epoch, index)
        image, cells = augment(image, cells, self.how, self.scaling.mean, rng)
        pixels = torch.from_numpy(self.scaling.apply(image))
        return pixels, torch.from_numpy(cells)[None]


def _same_size(path: Path, image: Image, density: DensityMap) -> None:
    if image.shape[:2] != density.size:
        raise InputError(
            path,
            f"the image is {image.shape[0]}x{image.shape[1]} (h x w), its density map was made "
            f"for {density.size[0]}x{density.size[1]}",
        )
