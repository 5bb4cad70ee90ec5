"""Merging overlapping detections of one image: suppression, joining, averaging.

Boxes are ``(N, 4)`` x1 y1 x2 y2 in pixels. Everything is class-wise unless ``class_agnostic``.
Order is by descending score, ties by input order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from dmnet.core.boxes import Boxes
from dmnet.core.config import own_settings
from dmnet.core.errors import ConfigError
from dmnet.core.overlaps import Floats, Ints, overlap_matrix
from dmnet.core.plugins import Choice, find
from dmnet.core.records import Detections
from dmnet.fusion.suppress import (
    RuleConfig,
    descending,
    legacy_topn_fault,
    nms,
    soft_nms,
    suppressors,
)


def nmm(found: Detections, config: MergeConfig) -> Detections:
    """Greedy non-maximum merging: what `nms` would drop is joined to the box that drops it.

    The joined box is the smallest one around its members; score and label are those of the best.
    Source: Akyon et al., "Slicing Aided Hyper Inference" (SAHI), 2022, GREEDYNMM.

    Args:
        found: boxes with their scores.
        config: boxes whose overlap (of ``metric``) is above ``iou`` are joined; joined boxes have
            grown and may overlap anew: ``until_stable`` repeats until none do, so that merging
            twice changes nothing; ``class_agnostic`` and ``plus_one`` count too.

    Returns:
        Descending score, ties by input order of the best member.
    """
    while True:
        owner = suppressors(found, config)
        low, high = found.boxes[:, :2].copy(), found.boxes[:, 2:].copy()
        np.minimum.at(low, owner, found.boxes[:, :2])
        np.maximum.at(high, owner, found.boxes[:, 2:])
        order = descending(found.scores)
        keep = order[owner[order] == order]
        done = len(keep) == len(found) or not config.until_stable
        joined = np.concatenate([low, high], axis=1)
        found = Detections(joined, found.scores, found.labels)[keep]
        if done:
            return found


def wbf(
    found: Detections,
    config: MergeConfig,
    source: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Detections:
    """Weighted box fusion: clusters of boxes become their mean, weighted by score.

    Boxes come in descending weighted score; each joins the cluster whose mean overlaps it most and
    more than the threshold, or starts one. Source: Solovyev et al., "Weighted boxes fusion", 2021.

    Args:
        found: boxes, with scores above 0 as the detectors gave them.
        config: ``iou`` is the threshold. ``rescale`` lowers the score of a cluster that fewer boxes
            than detectors support, as published; without it the score is the members' mean. Crops
            do not cover the image, so fusing whole image and crops does not rescale.
            ``class_agnostic`` clusters boxes of different classes too; the first one's label is
            kept.
        source: ``(N,)`` number of the detector, 0 upwards; one detector if None.
        weights: one weight per detector; 1 if None.

    Returns:
        Descending score, ties by order of the clusters.
    """
    boxes, score, label = found.boxes, found.scores, found.labels
    origin = np.zeros(len(boxes), np.int64) if source is None else np.asarray(source, np.int64)
    detectors = int(origin.max(initial=0)) + 1
    weight = np.ones(detectors) if weights is None else np.asarray(weights, np.float64)
    if len(weight) < detectors or (weight <= 0).any():
        raise ConfigError(f"wbf needs a weight above 0 for each of {detectors} detectors: {weight}")
    factor = weight[origin]
    order = descending(score * factor)
    order = order[score[order] > 0]
    if len(order) == 0:
        return Detections.empty()
    kinds = np.zeros(len(order)) if config.class_agnostic else label[order]
    groups = [order[kinds == value] for value in np.unique(kinds)]
    parts = [_clusters(boxes[g], (score * factor)[g], factor[g], config.iou) for g in groups]
    fused, total, members, mass = (np.concatenate([part[i] for part in parts]) for i in range(4))
    first = np.concatenate([g[part[4]] for g, part in zip(groups, parts, strict=True)])
    if config.rescale:
        final = total / members * np.minimum(len(weight), members) / weight.sum()
    else:
        final = total / mass
    order = descending(final)
    return Detections(fused[order], final[order], label[first][order])


def _clusters(
    boxes: Boxes, scores: Floats, weights: Floats, threshold: float
) -> tuple[Boxes, Floats, Floats, Floats, Ints]:
    """Cluster boxes sorted by descending score.

    Returns:
        A cluster's mean box, sum of scores, number of members, sum of weights, first member.
    """
    size = len(boxes)
    mean, total = np.zeros((size, 4)), np.zeros(size)
    members, mass, first = np.zeros(size), np.zeros(size), np.zeros(size, np.int64)
    count = 0
    for row in range(size):
        overlap = overlap_matrix(boxes[[row]], mean[:count])[0]
        best = int(np.argmax(overlap)) if count else -1
        if best < 0 or overlap[best] <= threshold:
            best, count = count, count + 1
            first[best] = row
        share = scores[row] / (total[best] + scores[row])
        mean[best] += share * (boxes[row] - mean[best])
        total[best] += scores[row]
        members[best] += 1
        mass[best] += weights[row]
    return mean[:count], total[:count], members[:count], mass[:count], first[:count]


@dataclass(frozen=True)
class MergeConfig(RuleConfig):
    """How overlapping detections of one image become one."""

    method: Annotated[str, Choice(RULES)] = "nms"
    """nms: drop the lower score; soft-nms: lower it; nmm: join the boxes; wbf: average them."""
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Settings of a rule that brings its own."""

    def __post_init__(self) -> None:
        """Check the values, also those of an outside rule.

        Raises:
            ValueError: a value outside its range, or a rule that does not exist.
        """
        super().__post_init__()
        _rule_of(self)


def merge(
    detections: Detections,
    config: MergeConfig | None = None,
    *,
    group: Ints | None = None,
    weight: Floats | None = None,
) -> Detections:
    """Merge the detections of one image.

    Args:
        detections: all boxes in image coordinates, scores already weighted.
        config: settings.
        group: ``(N,)`` number of the detector a row came from (weighted box fusion).
        weight: ``(N,)`` the weight its score was multiplied with (weighted box fusion).

    Returns:
        Detections by descending score, ties by input order, at most ``top_n``.
    """
    config = config or MergeConfig()
    if config.min_score > 0:
        keep = detections.scores >= config.min_score
        detections = detections[keep]
        group = None if group is None else group[keep]
        weight = None if weight is None else weight[keep]
    rule, own = _rule_of(config)
    merged = rule.merge(detections, own, group, weight)
    return merged[: config.top_n] if config.top_n > 0 else merged


@dataclass(frozen=True)
class Rule:
    """A way to merge the detections of one image."""

    merge: Callable[[Detections, Any, Ints | None, Floats | None], Detections]
    """``merge(found, settings, group, weight)``: what stays, by descending score, ties by input
    order; ``group`` and ``weight`` as in `dmnet.fusion.merge.merge`."""
    Config: type[Any] | None = None
    """Class of its settings, filled from ``own``; None: it gets the `MergeConfig`."""


def _rule_of(config: MergeConfig) -> tuple[Rule, Any]:
    """The rule and its settings.

    Raises:
        ValueError: there is no such rule, or it has no such settings.
    """
    try:
        rule = find(config.method, RULES, Rule)
    except ConfigError as error:
        raise ValueError(f"method: {error}") from error
    return rule, own_settings(rule.Config, config)


def _alone(rule: Callable[[Detections, MergeConfig], Detections]) -> Rule:
    """A rule that does not ask which detector a row came from."""
    return Rule(lambda found, config, group, weight: rule(found, config))


def _wbf(
    found: Detections, config: MergeConfig, group: Ints | None, weight: Floats | None
) -> Detections:
    """Weighted box fusion of rows whose scores already carry their weight."""
    if weight is None or not len(found):
        return wbf(found, config, group)
    found = Detections(found.boxes, found.scores / weight, found.labels)
    if group is None:
        return wbf(found, config)
    pairs, source = np.unique(np.stack([group, weight]), axis=1, return_inverse=True)
    return wbf(found, config, source.reshape(-1), pairs[1])


RULES: dict[str, Rule] = {
    "nms": _alone(lambda found, config: found[nms(found, config)]),
    "soft-nms": _alone(soft_nms),
    "nmm": _alone(nmm),
    "wbf": Rule(_wbf),
    "none": _alone(lambda found, config: found[descending(found.scores)]),
    "legacy_topn_fault": _alone(lambda found, config: found[legacy_topn_fault(found, config)]),
}
"""The merge rules by name."""
