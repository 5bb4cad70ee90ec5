"""The COCO protocols: average precision at a named cap of detections an image and class.

The counting is faster-coco-eval's. Every number is read from its precision and recall arrays at the
cap in the protocol's name, since printed COCO tables mix caps when ``maxDets`` is not the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import to_xywh
from dmnet.core.records import CLASSES, Annotations, Detections
from dmnet.fusion.overlaps import Floats

AREAS = ("all", "small", "medium", "large")
"""Size ranges by area in square pixels: small below 32^2, large above 96^2."""

IOUS: Floats = np.linspace(0.5, 0.95, 10)
"""The ten IoU thresholds."""


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


def as_coco(
    truths: Sequence[Annotations],
    results: Mapping[str, Detections],
    classes: Mapping[int, str],
    areas: Mapping[str, Floats] | None = None,
) -> tuple[dict[str, list[dict[str, object]]], list[dict[str, object]]]:
    """Ground truth and results as the dictionaries of the COCO format.

    Rows of other categories than ``classes`` are left out. A row of score 0 becomes ``iscrowd``.
    ``areas`` replaces width x height as a ground-truth row's area.
    """
    images: list[dict[str, object]] = []
    rows: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    for number, truth in enumerate(truths, start=1):
        height, width = truth.size
        images.append({"id": number, "width": width, "height": height})
        xywh = to_xywh(truth.boxes)
        size = areas[truth.image_id] if areas is not None else xywh[:, 2] * xywh[:, 3]
        chosen = np.flatnonzero(np.isin(truth.labels, list(classes)))
        for row in chosen.tolist():
            crowd = int(truth.score[row] == 0)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": number,
                    "category_id": int(truth.labels[row]),
                    "bbox": xywh[row].tolist(),
                    "area": float(size[row]),
                    "iscrowd": crowd,
                    "ignore": crowd,
                }
            )
        found += _result_rows(number, results.get(truth.image_id, Detections.empty()), classes)
    for row_id, entry in enumerate(found, start=1):
        entry["id"] = row_id
    names = [{"id": value, "name": name} for value, name in classes.items()]
    return {"images": images, "annotations": rows, "categories": names}, found


def _result_rows(
    number: int, result: Detections, classes: Mapping[int, str]
) -> list[dict[str, object]]:
    chosen = np.isin(result.labels, list(classes))
    xywh = to_xywh(result.boxes[chosen])
    columns = zip(
        xywh.tolist(),
        (xywh[:, 2] * xywh[:, 3]).tolist(),
        result.scores[chosen].tolist(),
        result.labels[chosen].tolist(),
        strict=True,
    )
    return [
        {
            "image_id": number,
            "category_id": label,
            "bbox": box,
            "area": area,
            "score": score,
            "iscrowd": 0,
        }
        for box, area, score, label in columns
    ]


def count(
    truths: Sequence[Annotations],
    results: Mapping[str, Detections],
    cap: int,
    *,
    classes: Mapping[int, str] = CLASSES,
    areas: Mapping[str, Floats] | None = None,
) -> CocoTables:
    """Match detections and ground truth by the COCO rules.

    Args:
        truths: ground truth an image; rows of score 0 count as crowd.
        results: detections by image id, any order; images without an entry have none.
        cap: detections an image and class, best first; ties by row order.
        classes: category ids to score.
        areas: ground-truth areas by image id, where they differ from width x height.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truth, found = as_coco(truths, results, classes, areas)
    ids = tuple(sorted(classes))
    detected = COCO({**truth, "annotations": found})
    evaluation = COCOeval_faster(COCO(truth), detected, "bbox", print_function=lambda _: None)
    evaluation.params.maxDets = _caps(cap)
    evaluation.params.catIds = list(ids)
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)
    recall = np.asarray(evaluation.eval["recall"], dtype=np.float64)
    return CocoTables(precision[..., _caps(cap).index(cap)], recall, ids, cap)
