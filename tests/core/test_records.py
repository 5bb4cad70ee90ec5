"""Detections to and from other tools' forms."""

from __future__ import annotations

import numpy as np
import pytest

from dmnet.core.classes import Classes
from dmnet.core.records import Detections, DetectionTable

FOUND = Detections(
    np.array([[5.0, 6, 15, 26], [0, 0, 9, 9]]), np.array([0.9, 0.4]), np.array([2, 1])
)
CLASSES = Classes(("car", "bus"), ids=(30, 60))


def same(a: Detections, b: Detections) -> bool:
    pairs = [(a.boxes, b.boxes), (a.scores, b.scores), (a.labels, b.labels)]
    return all(np.allclose(x, y) for x, y in pairs)


@pytest.mark.parametrize("found", [FOUND, Detections.empty()])
def test_coco_and_back(found: Detections) -> None:
    rows = found.to_coco(3, CLASSES)
    assert same(Detections.from_coco(rows, CLASSES), found)
    assert {row["image_id"] for row in rows} <= {3}


def test_coco_by_hand() -> None:
    row = FOUND.to_coco(3, CLASSES)[0]
    assert row == {"image_id": 3, "category_id": 60, "bbox": [5, 6, 10, 20], "score": 0.9}
    annotated = Detections.from_coco([{"bbox": [1, 2, 3, 4], "category_id": 30}], CLASSES)
    assert (annotated.boxes.tolist(), annotated.scores.tolist()) == ([[1, 2, 4, 6]], [1])
    with pytest.raises(KeyError):
        Detections.from_coco([{"bbox": [1, 2, 3, 4], "category_id": 5}], CLASSES)


@pytest.mark.parametrize("found", [FOUND, Detections.empty()])
def test_supervision_and_back(found: Detections) -> None:
    pytest.importorskip("supervision", reason="needs the extra viz")
    theirs = found.to_supervision(CLASSES)
    assert same(Detections.from_supervision(theirs), found)
    assert theirs.data["class_name"].tolist() == [CLASSES.scored[i] for i in found.labels.tolist()]


def test_a_short_repr() -> None:
    assert repr(FOUND) == "Detections(2 boxes, labels [1, 2])"


def test_a_table_gives_back_what_was_put_in() -> None:
    table = DetectionTable([("b", FOUND), ("none", Detections.empty())])
    assert same(table["b"], FOUND) and table["b"].labels.dtype == np.int64
    table.add("a", FOUND[:1])
    assert list(table) == ["b", "none", "a"] and len(table) == 3
    assert len(table["none"]) == 0 and same(table["a"], FOUND[:1]) and same(table["b"], FOUND)
    assert table.get("c") is None
