"""What a density network is worth on validation images, and what constant answers would reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn
from tqdm import tqdm

from dmnet.core.images import read_image
from dmnet.core.records import DensityMap
from dmnet.density.metrics import MeanMap, count_errors, grid_error
from dmnet.density.networks import TorchNetwork
from dmnet.density.predict import predict
from dmnet.density.samples import DensityPair
from dmnet.density.scale import Scaling

Measure = Callable[[int, DensityMap], Mapping[str, tuple[float, float]]]
"""Further measures on a predicted validation map (index, map): name to (numerator, denominator)."""

LOWER = frozenset({"val_mae", "val_rmse", "val_game"})
"""Scores of which the least is best."""


def evaluate(
    network: nn.Module,
    samples: Sequence[DensityPair],
    scaling: Scaling,
    *,
    device: str = "cpu",
    measure: Measure | None = None,
) -> dict[str, float]:
    """Count MAE, RMSE, GAME(2) and further measures over whole images; empty for an empty set."""
    if not samples:
        return {}
    ready = TorchNetwork(network, device)
    predicted, true, grid = [], [], []
    sums: dict[str, tuple[float, float]] = {}
    for index, sample in enumerate(tqdm(samples, desc="validation", leave=False, disable=None)):
        found = predict(ready, read_image(sample.image), scaling)
        known = sample.density()
        predicted.append(found.count)
        true.append(known.count)
        grid.append(grid_error(found, known))
        for name, (part, whole) in (measure(index, found) if measure else {}).items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + part, before[1] + whole)
    mae, rmse = count_errors(predicted, true)
    ratios = {name: part / whole if whole else 0.0 for name, (part, whole) in sums.items()}
    return {"val_mae": mae, "val_rmse": rmse, "val_game": sum(grid) / len(grid), **ratios}


def baselines(
    samples: Sequence[DensityPair], val_samples: Sequence[DensityPair]
) -> dict[str, float]:
    """What constant answers learnt from ``samples`` reach on ``val_samples``; empty without them.

    ``mean_count_mae`` and ``mean_count_rmse``: every image holds the mean count (the mean map has
    the same count); ``mean_map_game``: GAME(2) of the mean map.

    Raises:
        InputError: an unreadable map.
    """
    if not val_samples:
        return {}
    mean = MeanMap.fit(sample.density() for sample in samples)
    counts, grid = [], []
    for sample in val_samples:
        known = sample.density()
        counts.append(known.count)
        grid.append(grid_error(mean.at(known.size, known.stride), known))
    mae, rmse = count_errors([mean.count] * len(counts), counts)
    return {
        "mean_count_mae": mae,
        "mean_count_rmse": rmse,
        "mean_map_game": sum(grid) / len(grid),
    }
