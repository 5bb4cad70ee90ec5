"""Images scaled before they enter a network, and maps moved between sizes with their count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dmnet.core.records import DensityMap, Image, Size

Floats = NDArray[np.float64]

STRIDES = (4, 8, 16)
"""Strides of the maps that `map_stride` chooses from."""


@dataclass(frozen=True)
class Scaling:
    """How a network wants its input: RGB, ``(value - mean) / std`` of 0..255, so large.

    ``mean`` and ``std`` hold one number, or one for each of red, green and blue.
    """

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    long_side: int = 0
    """Larger images are shrunk until their longer side has this many pixels; 0: never."""

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Scaling:
        """Take the scaling from a weights file's metadata; unscaled RGB where it says nothing."""
        stated = meta.get("input", {})
        mean, std = (_numbers(stated.get(*entry)) for entry in (("mean", 0.0), ("std", 1.0)))
        return cls(mean, std, int(stated.get("long_side", 0)))

    def apply(self, image: Image) -> NDArray[np.float32]:
        """Scaled values of an ``(h, w, 3)`` image, channels first: ``(3, h, w)``."""
        mean, std = (np.asarray(value, np.float32) for value in (self.mean, self.std))
        pixels = (image.astype(np.float32) - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def stated(self) -> dict[str, Any]:
        """As `of` reads it."""
        return {"mean": self.mean, "std": self.std, "long_side": self.long_side}


def _numbers(value: Any) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)


def scaled_size(size: Size, long_side: int) -> Size:
    """``(height, width)`` whose longer side is at most ``long_side``; 0 keeps it. Never enlarged.

    >>> scaled_size((765, 1360), 640)
    (360, 640)
    >>> scaled_size((480, 640), 896)
    (480, 640)
    """
    if not 0 < long_side < max(size):
        return size
    height, width = (max(1, round(side * long_side / max(size))) for side in size)
    return height, width


def scaled_image(image: Image, long_side: int) -> Image:
    """Shrink an ``(h, w, 3)`` image to `scaled_size`, averaging over areas."""
    height, width = scaled_size((image.shape[0], image.shape[1]), long_side)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def map_stride(size: Size, scaled: Size, stride: int) -> int:
    """Stride of the full image's map: the largest of 4, 8, 16 that is no coarser than the network.

    Args:
        size: of the image.
        scaled: of the picture that entered the network.
        stride: of the network's output, in pixels of that picture.
    """
    if size == scaled:
        return stride
    pixels = stride * max(size) / max(scaled)
    return max([s for s in STRIDES if s <= pixels], default=STRIDES[0])


def rescaled(density: DensityMap, size: Size, stride: int) -> DensityMap:
    """The same objects on a picture of another size.

    Each cell's objects lie evenly over the area it covers, and every new cell gets those in its
    part of that area: the sum is kept, however the sizes and strides are related.
    """
    if (size, stride) == (density.size, density.stride):
        return density
    rows, columns = (
        shares(_edges(old, density.stride) * (new / old), _edges(new, stride))
        for old, new in zip(density.size, size, strict=True)
    )
    values = rows @ density.values.astype(np.float64) @ columns.T
    return DensityMap(values.astype(np.float32), stride, size)


def shares(old: Floats, new: Floats) -> Floats:
    """The share of each old cell that lies in each new cell, ``(new cells, old cells)``.

    Args:
        old: ascending edges of the old cells along one axis, ``(old cells + 1,)``.
        new: the same of the new cells; where both span the same length, every column sums to 1.
    """
    low = np.maximum(new[:-1, None], old[None, :-1])
    high = np.minimum(new[1:, None], old[None, 1:])
    part: Floats = np.maximum(high - low, 0.0) / np.diff(old)
    return part


def _edges(length: int, stride: int) -> Floats:
    """Edges of the cells along one axis in pixels; the last cell ends with the image."""
    edges: Floats = np.append(np.arange(0, length, stride), length).astype(np.float64)
    return edges
