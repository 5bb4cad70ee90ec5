"""How well counts are predicted, and what a constant answer would reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


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
