"""Merging: hand-written answers, golden cases, torchvision as the oracle, properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmnet.core.boxes import from_xywh
from dmnet.core.errors import ConfigError
from dmnet.fusion import merge as module
from dmnet.fusion.merge import legacy_topn_fault, nms


def crowd(rng: np.random.Generator, count: int, classes: int = 3) -> tuple[np.ndarray, ...]:
    centre = rng.uniform(0, 300, (count, 2))
    side = np.exp(rng.uniform(1, 5, (count, 1)) + rng.normal(0, 0.2, (count, 2)))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    return boxes, rng.permutation(count) / count, rng.integers(1, 1 + classes, count)


class TestNms:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]], dtype=float)

    def test_drops_the_lower_score(self) -> None:
        assert nms(self.boxes, [0.5, 0.9, 0.1], [1, 1, 1], 0.5).tolist() == [1, 2]

    def test_classes_are_apart_unless_agnostic(self) -> None:
        args = (self.boxes, [0.5, 0.9, 0.1], [1, 2, 1], 0.5)
        assert nms(*args).tolist() == [1, 0, 2]
        assert nms(*args, class_agnostic=True).tolist() == [1, 2]

    def test_equal_scores_keep_input_order(self) -> None:
        assert nms(self.boxes, [0.5, 0.5, 0.5], [1, 1, 1], 0.5).tolist() == [0, 2]

    def test_overlap_equal_to_the_threshold_stays(self) -> None:
        boxes = [[0, 0, 10, 10], [0, 0, 10, 5]]
        assert nms(boxes, [0.9, 0.8], [1, 1], 0.5).tolist() == [0, 1]
        assert nms(boxes, [0.9, 0.8], [1, 1], 0.49).tolist() == [0]

    def test_plus_one_counts_inclusive_pixels(self) -> None:
        boxes = [[0, 0, 9, 9], [5, 0, 14, 9]]  # 5 of 15 columns shared, exactly 4 of 14 half-open
        assert nms(boxes, [0.9, 0.8], [1, 1], 0.3).tolist() == [0, 1]
        assert nms(boxes, [0.9, 0.8], [1, 1], 0.3, plus_one=True).tolist() == [0]

    def test_ios_finds_a_small_box_inside_a_large_one(self) -> None:
        boxes = [[0, 0, 100, 100], [10, 10, 14, 14]]
        assert nms(boxes, [0.9, 0.8], [1, 1], 0.5).tolist() == [0, 1]
        assert nms(boxes, [0.9, 0.8], [1, 1], 0.5, metric="ios").tolist() == [0]

    def test_empty(self) -> None:
        assert nms(np.zeros((0, 4)), [], [], 0.5).tolist() == []

    def test_bad_threshold(self) -> None:
        with pytest.raises(ConfigError, match="between 0 and 1, got 70"):
            nms(self.boxes, [0.5, 0.9, 0.1], [1, 1, 1], 70)


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize("dense", [0, 10**6], ids=["grid", "matrix"])
def test_golden_cases(shared: Path, case: int, dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DENSE", dense)
    data = np.load(shared / "data" / "golden" / f"fusion_case{case}.npz")
    args = (from_xywh(data["boxes_xywh"]), data["scores"], data["labels"], float(data["iou"]))
    keep = nms(*args, plus_one=True)
    assert np.array_equal(np.sort(keep), data["keep_class_wise"])
    agnostic = nms(*args, plus_one=True, class_agnostic=True)
    assert np.array_equal(np.sort(agnostic), data["keep_class_agnostic"])
    fault = legacy_topn_fault(*args, int(data["topn"]))
    assert set(fault.tolist()) == set(data["keep_with_topn_fault"].tolist())
    assert np.all(np.diff(data["scores"][keep]) <= 0)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("count", [50, 2000])
def test_agrees_with_torchvision(rng: np.random.Generator, count: int, threshold: float) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops import nms as oracle

    boxes, scores, labels = crowd(rng, count)
    keep = nms(boxes, scores, labels, threshold)
    tensor = torch.from_numpy(boxes), torch.from_numpy(scores)
    expected = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        expected += rows[oracle(tensor[0][rows], tensor[1][rows], threshold).numpy()].tolist()
    assert sorted(keep.tolist()) == sorted(expected)
    assert np.all(np.diff(scores[keep]) < 0)
