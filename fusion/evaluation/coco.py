"""The COCO protocols: average precision at a named cap of detections per image and class.

The counting is faster-coco-eval's. Every number is read from its precision and recall arrays at the
cap in the protocol's name, since printed COCO tables mix caps when ``maxDets`` is not the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmnet.core.overlaps import Floats
from dmnet.fusion.evaluation.scored_images import ScoredImage
from dmnet.fusion.evaluation.visdrone import drop_ignored

Json = dict[str, Any]

AREAS = ("all", "small", "medium", "large")
"""Size ranges by area in square pixels: small below 32^2, large above 96^2."""

IOUS: Floats = np.linspace(0.5, 0.95, 10)
"""The ten IoU thresholds."""

_PART = 1_024
"""Images that the library matches at once."""


@dataclass(frozen=True)
class CocoTables:
    """What the protocol counts; -1 marks a class or size without ground truth.

    ``precision`` ``(10 IoU, 101 recall, classes, 4 areas)`` and ``recall`` ``(10, classes, 4, 3)``
    (the last axis: caps 1, 10 and the named one); ``classes`` the category ids in order.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    classes: tuple[int, ...]
    cap: int

    def ap(self, iou: float | None = None, area: str = "all", label: int | None = None) -> float:
        """Average precision, 0 to 1; NaN if no class has ground truth there.

        Args:
            iou: one threshold, or None for the mean of all ten.
            area: one of `AREAS`.
            label: one class, or None for the mean over classes.
        """
        table = self.precision[..., AREAS.index(area)]
        if iou is not None:
            table = table[np.isclose(IOUS, iou)]
        if label is not None:
            table = table[:, :, [self.classes.index(label)]]
        return _mean(table)

    def ar(self, cap: int | None = None, area: str = "all", label: int | None = None) -> float:
        """Average recall over the ten thresholds at cap 1, 10 or the named one (None)."""
        table = self.recall[:, :, AREAS.index(area), _caps(self.cap).index(cap or self.cap)]
        if label is not None:
            table = table[:, [self.classes.index(label)]]
        return _mean(table)


def _mean(values: Floats) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if len(valid) else float("nan")


def _caps(cap: int) -> list[int]:
    return sorted({1, 10, cap})


def coco_images(
    images: Sequence[ScoredImage], *, ignore_regions: bool = False, crowd: bool = False
) -> list[ScoredImage]:
    """What the COCO protocols score: without empty rows, and without or beside ignored ones."""
    out = []
    for image in images:
        if ignore_regions:
            image = drop_ignored(image)
        keep = (image.truth[:, 2:4] > 0).all(axis=1)
        if not (crowd or ignore_regions):
            keep &= image.truth[:, 4] != 0
        if not keep.all():
            areas = None if image.areas is None else image.areas[keep]
            image = replace(image, truth=image.truth[keep], areas=areas)
        out.append(image)
    return out


def as_coco(
    scored: Sequence[ScoredImage], classes: Mapping[int, str]
) -> tuple[dict[str, list[Json]], list[Json]]:
    """Ground truth and results as the dictionaries of the COCO format.

    Image ids count from 1 in the given order. Rows of other categories than ``classes`` are left
    out; a ground-truth row of score 0 becomes ``iscrowd``.
    """
    known = list(classes)
    images: list[Json] = []
    truths: list[Json] = []
    found: list[Json] = []
    for number, image in enumerate(scored, start=1):
        height, width = image.size or (0, 0)
        images.append({"id": number, "width": width, "height": height})
        rows = image.truth
        areas = rows[:, 2] * rows[:, 3] if image.areas is None else image.areas
        chosen = np.isin(rows[:, 5], known)
        truths += _dictionaries(number, rows[chosen], areas[chosen], rows[chosen, 4] == 0)
        rows = image.found[np.isin(image.found[:, 5], known)]
        found += _dictionaries(number, rows, rows[:, 2] * rows[:, 3], np.zeros(len(rows), bool))
    for table in (truths, found):
        for row_id, entry in enumerate(table, start=1):
            entry["id"] = row_id
    names: list[Json] = [{"id": label, "name": name} for label, name in classes.items()]
    return {"images": images, "annotations": truths, "categories": names}, found


def _dictionaries(number: int, rows: Floats, areas: Floats, crowd: NDArray[np.bool_]) -> list[Json]:
    ignored = crowd.astype(int).tolist()
    columns = {
        "category_id": rows[:, 5].astype(np.int64).tolist(),
        "bbox": rows[:, :4].tolist(),
        "area": areas.tolist(),
        "score": rows[:, 4].tolist(),
        "iscrowd": ignored,
        "ignore": ignored,
    }
    return [
        {"image_id": number, **dict(zip(columns, row, strict=True))}
        for row in zip(*columns.values(), strict=True)
    ]


def count(images: Sequence[ScoredImage], cap: int, *, classes: Mapping[int, str]) -> CocoTables:
    """Match detections and ground truth by the COCO rules.

    Class by class, and many images in parts: none decides about another, and the library holds some
    700 bytes an object that it matches, then some 360 a detection.

    Args:
        images: every image of the set; ground truth of score 0 counts as crowd.
        cap: detections per image and class, best first; ties by row order.
        classes: names of the categories to score, by id.
    """
    ids = tuple(sorted(classes))
    tables = [_count_class(images, cap, label, classes[label]) for label in ids]
    precision = np.concatenate([table[0] for table in tables], axis=2)
    recall = np.concatenate([table[1] for table in tables], axis=1)
    return CocoTables(precision[..., _caps(cap).index(cap)], recall, ids, cap)


def _count_class(
    images: Sequence[ScoredImage], cap: int, label: int, name: str
) -> tuple[Floats, Floats]:
    """Precision ``(10, 101, 1, 4, caps)`` and recall ``(10, 1, 4, caps)`` of one class."""
    some = [i for i in images if (i.truth[:, 5] == label).any() or (i.found[:, 5] == label).any()]
    matched: list[list[Any]] = [[] for _ in AREAS]
    for start in range(0, max(1, len(some)), _PART):
        part = some[start : start + _PART]
        evaluation = _evaluated(part, cap, {label: name})
        for size, each in enumerate(matched):
            each += evaluation._evalImgs_cpp[size * len(part) : (size + 1) * len(part)]
    params, tables = evaluation._paramsEval, []
    params.imgIds, ranges = list(range(len(some))), params.areaRng
    for size in ranges:  # one by one: the sums copy what they are taken of
        params.areaRng, evaluation._evalImgs_cpp = [size], matched.pop(0)
        evaluation.accumulate()
        tables.append(evaluation.eval)
    precision = np.concatenate([table["precision"] for table in tables], axis=3)
    recall = np.concatenate([table["recall"] for table in tables], axis=2)
    return precision, recall


def _evaluated(images: Sequence[ScoredImage], cap: int, classes: Mapping[int, str]) -> Any:
    """The library's evaluation of some images; its sums are not taken yet.

    What it keeps of each image for them it lists by class, size and image.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truth, found = as_coco(images, classes)
    evaluation = COCOeval_faster(
        COCO(truth),
        COCO({**truth, "annotations": found}),
        "bbox",
        print_function=lambda _: None,
        separate_eval=True,
    )
    evaluation.params.maxDets, evaluation.params.catIds = _caps(cap), list(classes)
    evaluation.evaluate()
    return evaluation
