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


LEVEL = 0.95
"""Share of the repetitions inside an interval."""


def draws(images: int, repeats: int) -> Floats:
    """How often each image counts in each repetition, ``(repeats, images)``; always the same."""
    rng = np.random.default_rng(0)
    return rng.multinomial(images, np.full(images, 1 / images), size=repeats).astype(np.float64)


def resample(table: Matched, *, repeats: int = 200) -> Floats:
    """AP, AP50 and AP75 of every repetition, ``(repeats, 3)``.

    Args:
        table: the set, matched at the protocol's ten thresholds.
        repeats: bootstrap repetitions; they draw the same images for every table.
    """
    if not table.image_ids:
        return np.full((1, len(METRICS)), np.nan)
    times = draws(len(table.image_ids), repeats)
    rows = [_summary(set_ap(table, row)) for row in tqdm(times, "bootstrap", disable=None)]
    return np.array(rows)


def intervals(table: Matched, drawn: Floats) -> dict[str, Interval]:
    """Percentile intervals of AP, AP50 and AP75.

    Args:
        table: the set, matched at the protocol's ten thresholds.
        drawn: what `resample` gave for this table.
    """
    values = _summary(set_ap(table))
    return {
        name: _interval(value, drawn[:, column])
        for column, (name, value) in enumerate(zip(METRICS, values, strict=True))
    }


def compare(first: Matched, second: Matched, drawn: tuple[Floats, Floats]) -> dict[str, Comparison]:
    """Paired bootstrap of two results on the same images, for AP, AP50 and AP75.

    ``drawn`` is what `resample` gave for the two.

    Raises:
        ConfigError: the results are not of the same images and protocol.
    """
    if first.image_ids != second.image_ids or first.protocol != second.protocol:
        raise ConfigError(
            "a paired comparison needs the same images and protocol: "
            f"{len(first.image_ids)} images under {first.protocol}, "
            f"{len(second.image_ids)} under {second.protocol}"
        )
    difference = drawn[1] - drawn[0]
    values = _summary(set_ap(second)) - _summary(set_ap(first))
    out = {}
    for column, name in enumerate(METRICS):
        rows = difference[~np.isnan(difference[:, column]), column]
        tail = min((rows <= 0).sum(), (rows >= 0).sum())
        p = min(1.0, 2 * (int(tail) + 1) / (len(rows) + 1))
        out[name] = Comparison(_interval(float(values[column]), rows), p)
    return out


def _summary(ap: Floats) -> Floats:
    return np.array([ap.mean(), ap[0], ap[5]])


def _interval(value: float, rows: Floats) -> Interval:
    rows = rows[~np.isnan(rows)]
    if len(rows) == 0:
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(rows, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
