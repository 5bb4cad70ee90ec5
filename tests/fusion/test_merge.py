"""Merging: hand-written answers, golden cases, torchvision as the oracle, properties."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from dmnet.core.boxes import from_xywh
from dmnet.core.errors import ConfigError
from dmnet.core.overlaps import Metric, overlap_matrix
from dmnet.core.records import Detections
from dmnet.fusion import merge as rules
from dmnet.fusion import suppress as module
from dmnet.fusion.merge import MergeConfig, merge


def nms(b: ArrayLike, s: ArrayLike, k: ArrayLike, iou: float, **more: Any) -> np.ndarray:
    return module.nms(Detections(b, s, k), MergeConfig(iou=iou, **more))


def soft_nms(b: ArrayLike, s: ArrayLike, k: ArrayLike, iou: float, **more: Any) -> Detections:
    return module.soft_nms(Detections(b, s, k), MergeConfig(iou=iou, **more))


def nmm(b: ArrayLike, s: ArrayLike, k: ArrayLike, iou: float, **more: Any) -> Detections:
    return rules.nmm(Detections(b, s, k), MergeConfig(iou=iou, metric="ios", **more))


def wbf(
    b: ArrayLike, s: ArrayLike, k: ArrayLike, iou: float, *, rescale: bool = True, **more: Any
) -> Detections:
    return rules.wbf(Detections(b, s, k), MergeConfig(iou=iou, rescale=rescale), **more)


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
        with pytest.raises(ValueError, match="iou must be 0 to 1, got 70"):
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
    config = MergeConfig(iou=args[3], top_n=int(data["topn"]))
    fault = module.legacy_topn_fault(Detections(*args[:3]), config)
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


@pytest.mark.parametrize("metric", ["iou", "ios"])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8])
def test_grid_and_matrix_agree(
    rng: np.random.Generator, metric: Metric, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, scores, labels = crowd(rng, 700)
    boxes[:20, 2:] = boxes[:20, :2]  # without area
    boxes[20:40] = boxes[40:60]  # twice
    boxes[60:64] *= 30  # large and far away
    answers = []
    for dense in (0, 10**6):
        monkeypatch.setattr(module, "_DENSE", dense)
        answers.append(nms(boxes, scores, labels, threshold, metric=metric).tolist())
    assert answers[0] == answers[1]


@pytest.mark.parametrize("count", [33337])
def test_speed_and_memory_of_a_crowd(rng: np.random.Generator, count: int) -> None:
    """Loose bounds; the benchmark measures. The full matrix would take 9 GB."""
    boxes, scores, labels = crowd(rng, count, classes=1)
    start = time.perf_counter()
    tracemalloc.start()
    keep = nms(boxes, scores, labels, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    merged = nmm(boxes, scores, labels, 0.5)
    assert time.perf_counter() - start < 10
    assert peak < 4000 * count
    assert 0 < len(merged) < len(keep) < count


class TestSoftNms:
    def test_linear_by_hand(self) -> None:
        boxes = [[0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]]
        kept = soft_nms(boxes, [0.9, 0.8, 0.5], [1, 1, 1], 0.4, decay="linear")
        assert kept.boxes.tolist() == [boxes[0], boxes[2], boxes[1]]
        assert kept.scores.tolist() == pytest.approx([0.9, 0.5, 0.4])

    def test_gaussian_by_hand(self) -> None:
        boxes = [[0, 0, 10, 10], [0, 0, 10, 5]]
        kept = soft_nms(boxes, [0.9, 0.8], [1, 1], 0.4, sigma=0.5)
        assert kept.boxes.tolist() == boxes
        assert kept.scores[1] == pytest.approx(0.8 * np.exp(-(0.5**2) / 0.5))

    def test_other_classes_keep_their_scores(self) -> None:
        boxes = [[0, 0, 10, 10], [0, 0, 10, 10]]
        assert soft_nms(boxes, [0.9, 0.8], [1, 2], 0.4).scores.tolist() == [0.9, 0.8]
        assert soft_nms(boxes, [0.9, 0.8], [1, 2], 0.4, class_agnostic=True).scores[1] < 0.2

    def test_falls_below_the_floor(self) -> None:
        boxes = [[0, 0, 10, 10], [0, 0, 10, 10]]
        kept = soft_nms(boxes, [0.9, 0.8], [1, 1], 0.4, decay="linear")
        assert kept.scores.tolist() == [0.9]

    def test_empty(self) -> None:
        assert len(soft_nms(np.zeros((0, 4)), [], [], 0.5)) == 0

    def test_bad_sigma(self) -> None:
        with pytest.raises(ValueError, match="sigma must be above 0"):
            soft_nms(np.zeros((0, 4)), [], [], 0.5, sigma=0)


def plain_nmm(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[list[float]]:
    """Greedy merging of one class, box by box."""
    order = np.argsort(-scores, kind="stable").tolist()
    out = []
    while order:
        best = order.pop(0)
        overlap = overlap_matrix(boxes[[best]], boxes, "ios")[0]
        mine = [best] + [i for i in order if overlap[i] > threshold]
        order = [i for i in order if i not in mine]
        out.append([*boxes[mine, :2].min(axis=0), *boxes[mine, 2:].max(axis=0), scores[best]])
    return out


class TestNmm:
    def test_joins_to_the_smallest_box_around(self) -> None:
        boxes = [[0, 0, 10, 10], [2, 0, 12, 10], [30, 0, 40, 10]]
        joined = nmm(boxes, [0.5, 0.9, 0.1], [1, 1, 1], 0.5)
        assert joined.boxes.tolist() == [[0, 0, 12, 10], [30, 0, 40, 10]]
        assert (joined.scores.tolist(), joined.labels.tolist()) == ([0.9, 0.1], [1, 1])

    def test_once_or_until_stable(self) -> None:
        boxes = [[0, 0, 10, 10], [6, 0, 16, 10], [3, 0, 13, 10]]
        args = (boxes, [0.9, 0.8, 0.7], [1, 1, 1], 0.6)
        assert nmm(*args).boxes.tolist() == [[0, 0, 13, 10], [6, 0, 16, 10]]
        assert nmm(*args, until_stable=True).boxes.tolist() == [[0, 0, 16, 10]]

    def test_agrees_with_plain_loop(self, rng: np.random.Generator) -> None:
        boxes, scores, _ = crowd(rng, 600)
        found = nmm(boxes, scores, np.ones(600), 0.5)
        expected = plain_nmm(boxes, scores, 0.5)
        assert np.column_stack([found.boxes, found.scores]).tolist() == expected

    def test_empty(self) -> None:
        assert len(nmm(np.zeros((0, 4)), [], [], 0.5)) == 0


class TestWbf:
    def test_mean_is_weighted_by_score(self) -> None:
        boxes = [[0, 0, 10, 10], [2, 0, 12, 10]]
        fused = wbf(boxes, [0.9, 0.3], [1, 1], 0.5)
        assert fused.boxes[0].tolist() == pytest.approx([0.5, 0, 10.5, 10])
        assert fused.scores.tolist() == pytest.approx([0.6 * 1])

    def test_single_box_of_two_detectors_is_rescaled(self) -> None:
        args = ([[0, 0, 10, 10], [50, 0, 60, 10]], [0.9, 0.3], [1, 1], 0.5)
        assert wbf(*args, source=[0, 1]).scores.tolist() == pytest.approx([0.45, 0.15])
        mean = wbf(*args, source=[0, 1], rescale=False)
        assert mean.scores.tolist() == pytest.approx([0.9, 0.3])

    @pytest.mark.parametrize("threshold", [0.4, 0.55, 0.7])
    def test_agrees_with_ensemble_boxes(self, rng: np.random.Generator, threshold: float) -> None:
        oracle = pytest.importorskip("ensemble_boxes").weighted_boxes_fusion
        centre = rng.uniform(0.2, 0.8, (60, 2))
        side = rng.uniform(0.02, 0.2, (60, 2))
        parts, scores, labels = [], [], []
        for _ in range(3):
            at = centre + rng.normal(0, 0.01, (60, 2))
            parts.append(np.concatenate([at - side / 2, at + side / 2], axis=1))
            scores.append(rng.uniform(0.05, 1, 60))
            labels.append(np.arange(60) % 3 + 1)
        weights = [1.0, 2.0, 0.5]
        expected = oracle(parts, scores, labels, weights=weights, iou_thr=threshold)
        source = np.repeat([0, 1, 2], 60)
        joined = (np.concatenate(parts), np.concatenate(scores), np.concatenate(labels))
        fused = wbf(*joined, threshold, source=source, weights=weights)
        order = np.lexsort((fused.boxes[:, 0], np.round(fused.scores, 5)))
        other = np.lexsort((expected[0][:, 0], np.round(expected[1], 5)))
        np.testing.assert_allclose(fused.scores[order], expected[1][other], atol=1e-5)
        np.testing.assert_allclose(fused.boxes[order], expected[0][other], atol=1e-5)
        assert fused.labels[order].tolist() == expected[2][other].tolist()

    def test_empty(self) -> None:
        assert len(wbf(np.zeros((0, 4)), [], [], 0.5)) == 0

    def test_needs_a_weight_for_every_source(self) -> None:
        with pytest.raises(ConfigError, match="weight above 0 for each of 2"):
            wbf([[0, 0, 1, 1]], [0.5], [1], 0.5, source=[1], weights=[1.0])


METHODS = ("nms", "soft-nms", "nmm", "wbf", "none", "legacy_topn_fault")


@pytest.mark.parametrize("method", METHODS)
class TestMerge:
    def test_empty(self, method: Literal["nms"]) -> None:
        assert len(merge(Detections.empty(), MergeConfig(method=method))) == 0

    def test_sorted_and_cut(self, rng: np.random.Generator, method: Literal["nms"]) -> None:
        merged = merge(Detections(*crowd(rng, 300)), MergeConfig(method=method, top_n=20))
        assert len(merged) == 20
        if method != "legacy_topn_fault":
            assert np.all(np.diff(merged.scores) <= 0)

    def test_min_score(self, rng: np.random.Generator, method: Literal["nms"]) -> None:
        config = MergeConfig(method=method, min_score=0.9, top_n=0)
        assert 0 < len(merge(Detections(*crowd(rng, 300)), config)) <= 30


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 120), st.sampled_from([0.1, 0.5, 0.7]))
def test_nms_properties(seed: int, count: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    found = Detections(*crowd(rng, count))
    config = MergeConfig(iou=threshold)
    merged = merge(found, config)
    rows = {tuple(row) for row in np.column_stack([found.boxes, found.scores])}
    assert {tuple(row) for row in np.column_stack([merged.boxes, merged.scores])} <= rows
    again = merge(merged, config)
    assert np.array_equal(again.boxes, merged.boxes)
    shuffled = merge(found[rng.permutation(count)], config)
    assert np.array_equal(shuffled.boxes, merged.boxes)
    assert np.array_equal(shuffled.labels, merged.labels)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 80))
def test_nmm_until_stable_is_idempotent(seed: int, count: int) -> None:
    found = Detections(*crowd(np.random.default_rng(seed), count))
    config = MergeConfig(method="nmm", iou=0.5, metric="ios", until_stable=True)
    merged = merge(found, config)
    again = merge(merged, config)
    assert np.array_equal(again.boxes, merged.boxes)
    assert np.array_equal(again.scores, merged.scores)
