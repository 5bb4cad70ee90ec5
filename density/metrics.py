"""How well counts are predicted, and what constant answers would reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmnet.core.errors import ConfigError
from dmnet.core.records import DensityMap, Size
from dmnet.density.scale import shares

GRID = 64
"""Side of the grid on which the mean map is kept."""


def count_errors(predicted: ArrayLike, true: ArrayLike) -> tuple[float, float]:
    """Mean absolute error and root mean squared error of counts, ``(MAE, RMSE)``.

    Args:
        predicted: ``(N,)`` counts.
        true: ``(N,)`` counts.

    Raises:
        ValueError: the lengths differ, or there is no image.
    """
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"counts must be two equally long rows, got {a.shape} and {b.shape}")
    error = a - b
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))


def grid_error(predicted: DensityMap, true: DensityMap, level: int = 2) -> float:
    """Sum of the absolute count errors of ``2^level`` x ``2^level`` regions of one image.

    Its mean over a set is GAME(level) (Guerrero-Gomez-Olmedo et al., "Extremely Overlapping Vehicle
    Counting", IbPRIA 2015); level 0 is the count error. A map right in sum but not in place is
    found out.

    Raises:
        ValueError: the maps are of images of different size.
    """
    if predicted.size != true.size:
        raise ValueError(f"maps of images of different size: {predicted.size} and {true.size}")
    side = 2**level
    parts = [_regions(density.values, side) for density in (predicted, true)]
    return float(np.abs(parts[0] - parts[1]).sum())


def _regions(values: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """Mass of ``side`` x ``side`` regions; a cell on a border is shared by area."""
    rows, columns = (
        shares(np.arange(length + 1.0), np.linspace(0, length, side + 1)) for length in values.shape
    )
    mass: NDArray[np.float64] = rows @ values.astype(np.float64) @ columns.T
    return mass


@dataclass(frozen=True)
class MeanMap:
    """The baseline that answers every image with the mean map of the training set."""

    grid: NDArray[np.float64]
    """``(64, 64)`` mean number of objects, over relative image coordinates."""

    @classmethod
    def fit(cls, maps: Iterable[DensityMap]) -> MeanMap:
        """Average maps, read one by one.

        Raises:
            ConfigError: there is no map.
        """
        total, count = np.zeros((GRID, GRID)), 0
        for density in maps:
            total += _regions(density.values, GRID)
            count += 1
        if not count:
            raise ConfigError("the mean map of an empty training set is not defined")
        return cls(total / count)

    @property
    def count(self) -> float:
        """Mean number of objects of an image: the baseline for counts."""
        return float(self.grid.sum())

    def at(self, size: Size, stride: int = 4) -> DensityMap:
        """The mean map for an image of ``size``; its sum is `count`."""
        height, width = (-(-side // stride) for side in size)
        values = np.asarray(cv2.resize(self.grid, (width, height), interpolation=cv2.INTER_LINEAR))
        total = values.sum()
        scaled = values * (self.count / total) if total > 0 else values
        return DensityMap(scaled.astype(np.float32), stride, size)
