"""Confidence intervals over images, and the paired comparison of two results.

Images are drawn with replacement; detections and ground truth of an image stay together. Source:
Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13 (percentile interval).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dmnet.core.errors import ConfigError
from dmnet.core.overlaps import Floats
from dmnet.fusion.evaluation.matched import Matched, set_ap

METRICS = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class Interval:
    """A value of the whole set and its interval, in 0 to 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Second result minus first: difference, interval, two-sided p value of no difference."""

    difference: Interval
    p_value: float


def draws(images: int, repeats: int, seed: int = 0) -> Floats:
    """How often each image counts in each repetition, ``(repeats, images)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=repeats).astype(np.float64)


def resample(table: Matched, *, repeats: int = 200, seed: int = 0) -> Floats:
    """AP, AP50 and AP75 of every repetition, ``(repeats, 3)``.

    Args:
        table: the set, matched at the protocol's ten thresholds.
        repeats: bootstrap repetitions.
        seed: of the generator; equal seeds draw the same images.
    """
    if not table.images:
        return np.full((1, len(METRICS)), np.nan)
    times = draws(len(table.images), repeats, seed)
    rows = [_summary(set_ap(table, row)) for row in tqdm(times, "bootstrap", disable=None)]
    return np.array(rows)


def intervals(
    table: Matched,
    *,
    repeats: int = 200,
    level: float = 0.95,
    seed: int = 0,
    drawn: Floats | None = None,
) -> dict[str, Interval]:
    """Percentile intervals of AP, AP50 and AP75.

    Args:
        table: the set, matched at the protocol's ten thresholds.
        repeats: bootstrap repetitions.
        level: share of the repetitions inside.
        seed: of the generator.
        drawn: what `resample` gave for this table, where it is at hand.
    """
    values = _summary(set_ap(table))
    rows = resample(table, repeats=repeats, seed=seed) if drawn is None else drawn
    return {
        name: _interval(value, rows[:, column], level)
        for column, (name, value) in enumerate(zip(METRICS, values, strict=True))
    }


def compare(
    first: Matched,
    second: Matched,
    *,
    repeats: int = 200,
    level: float = 0.95,
    seed: int = 0,
    drawn: tuple[Floats, Floats] | None = None,
) -> dict[str, Comparison]:
    """Paired bootstrap of two results on the same images, for AP, AP50 and AP75.

    ``drawn`` is what `resample` gave for the two with one seed, where it is at hand.

    Raises:
        ConfigError: the results are not of the same images and protocol.
    """
    names = [[each.image_id for each in table.images] for table in (first, second)]
    if names[0] != names[1] or first.protocol != second.protocol:
        raise ConfigError(
            f"a paired comparison needs the same images and protocol: {len(names[0])} images under "
            f"{first.protocol}, {len(names[1])} under {second.protocol}"
        )
    if drawn is None:
        drawn = (
            resample(first, repeats=repeats, seed=seed),
            resample(second, repeats=repeats, seed=seed),
        )
    difference = drawn[1] - drawn[0]
    values = _summary(set_ap(second)) - _summary(set_ap(first))
    out = {}
    for column, name in enumerate(METRICS):
        rows = difference[~np.isnan(difference[:, column]), column]
        tail = min((rows <= 0).sum(), (rows >= 0).sum())
        p = min(1.0, 2 * (int(tail) + 1) / (len(rows) + 1))
        out[name] = Comparison(_interval(float(values[column]), rows, level), p)
    return out


def _summary(ap: Floats) -> Floats:
    return np.array([ap.mean(), ap[0], ap[5]])


def _interval(value: float, rows: Floats, level: float) -> Interval:
    rows = rows[~np.isnan(rows)]
    if len(rows) == 0:
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(rows, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
