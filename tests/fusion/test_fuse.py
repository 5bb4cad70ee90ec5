"""Placing crops, the edge rule, fusing any number of sources."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmnet.core.records import Detections
from dmnet.fusion.fuse import (
    FuseConfig,
    Origin,
    fuse,
    fuse_image,
    inside_any,
    into_image,
    touches_inner_border,
)
from dmnet.fusion.merge import MergeConfig

SIZE = (100, 200)


def found(*rows: tuple[float, ...]) -> Detections:
    """Rows x1 y1 x2 y2 score label."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_into_image_shifts_a_copy() -> None:
    crop = found((1, 2, 5, 6, 0.5, 4))
    placed = into_image(crop, (10, 20, 50, 60))
    assert placed.boxes.tolist() == [[11, 22, 15, 26]]
    assert crop.boxes.tolist() == [[1, 2, 5, 6]]
    placed.scores[0] = 0
    assert crop.scores.tolist() == [0.5]


def test_only_inner_borders_count() -> None:
    boxes = np.array([[0, 10, 5, 20], [95, 10, 100, 20], [50, 0, 60, 10], [50, 90, 60, 99.5]])
    touching = touches_inner_border(boxes, (0, 0, 100, 100), SIZE, 1.0)
    assert touching.tolist() == [False, True, False, False]  # only x = 100 lies inside the image


class TestEdgeRule:
    window = (0, 0, 100, 100)
    cut = (80.0, 10.0, 100.0, 30.0, 0.9, 4.0)

    def fused(self, whole: Detections, **settings: object) -> list[list[float]]:
        config = FuseConfig(**settings)  # type: ignore[arg-type]
        return fuse_image(whole, [(self.window, found(self.cut))], SIZE, config).boxes.tolist()

    def test_covered_cut_box_is_dropped(self) -> None:
        assert self.fused(found((80, 10, 120, 30, 0.5, 4))) == [[80, 10, 120, 30]]

    def test_cut_box_alone_stays(self) -> None:
        assert self.fused(Detections.empty()) == [[80, 10, 100, 30]]

    def test_covered_by_another_class_stays(self) -> None:
        assert len(self.fused(found((80, 10, 120, 30, 0.5, 5)))) == 2

    def test_hardly_covered_stays(self) -> None:
        assert len(self.fused(found((90, 10, 130, 30, 0.5, 4)))) == 2
        assert len(self.fused(found((90, 10, 130, 30, 0.5, 4)), edge_cover=0.5)) == 1

    def test_switched_off(self) -> None:
        assert len(self.fused(found((80, 10, 120, 30, 0.5, 4)), edge_margin=None)) == 2

    def test_margin(self) -> None:
        whole = found((70, 10, 120, 30, 0.5, 4))
        crop = [((0, 0, 100, 100), found((80, 10, 97, 30, 0.9, 4)))]
        assert len(fuse_image(whole, crop, SIZE, FuseConfig(edge_margin=2))) == 2
        assert len(fuse_image(whole, crop, SIZE, FuseConfig(edge_margin=3))) == 1

    def test_a_box_of_the_same_crop_does_not_cover(self) -> None:
        crops = [(self.window, found(self.cut, (60, 5, 99, 35, 0.5, 4)))]
        assert len(fuse_image(Detections.empty(), crops, SIZE)) == 2

    def test_two_like_boxes_never_remove_each_other(self) -> None:
        left = ((0, 0, 110, 100), found((90, 10, 110, 30, 0.9, 4)))
        right = ((90, 0, 200, 100), found((0, 10, 20, 30, 0.8, 4)))
        config = FuseConfig(merge=MergeConfig(method="none"))
        fused = fuse_image(Detections.empty(), [left, right], SIZE, config)
        assert fused.scores.tolist() == [0.9]


def test_keep_or_drop_inside() -> None:
    whole = found((10, 10, 20, 20, 0.9, 1), (95, 10, 105, 20, 0.8, 1))
    crops = [((0, 0, 100, 100), found((50, 50, 60, 60, 0.7, 1)))]
    assert len(fuse_image(whole, crops, SIZE)) == 3
    dropped = fuse_image(whole, crops, SIZE, FuseConfig(inside="drop_inside"))
    assert dropped.scores.tolist() == [0.8, 0.7]
    assert inside_any(whole.boxes, [(0, 0, 100, 100), (0, 0, 15, 15)]).tolist() == [True, False]


def test_weights_multiply_scores() -> None:
    whole = found((10, 10, 20, 20, 0.9, 1))
    crops = [((0, 0, 100, 100), found((10, 10, 20, 20, 0.6, 1)))]
    fused = fuse_image(whole, crops, SIZE, FuseConfig(whole_weight=0.5))
    assert fused.scores.tolist() == [0.6]


def test_ties_keep_the_order_of_the_sources() -> None:
    same = found((10, 10, 20, 20, 0.5, 1))
    moved = found((10, 10, 20, 21, 0.5, 1))
    assert fuse([Origin(same), Origin(moved)], SIZE).boxes.tolist() == same.boxes.tolist()
    assert fuse([Origin(moved), Origin(same)], SIZE).boxes.tolist() == moved.boxes.tolist()


def test_wbf_counts_groups_and_weights() -> None:
    a, b = found((10, 10, 20, 20, 0.8, 1)), found((12, 10, 22, 20, 0.4, 1))
    config = FuseConfig(merge=MergeConfig(method="wbf", iou=0.5))
    fused = fuse([Origin(a, group=0), Origin(b, weight=2.0, group=1)], SIZE, config)
    assert fused.boxes[0].tolist() == pytest.approx([11, 10, 21, 20])
    assert fused.scores.tolist() == pytest.approx([1.6 / 3])


def test_nothing() -> None:
    assert len(fuse([], SIZE)) == 0
    assert len(fuse_image(Detections.empty(), [], SIZE)) == 0
    assert len(fuse_image(Detections.empty(), [((0, 0, 5, 5), Detections.empty())], SIZE)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 4))
def test_fused_boxes_are_among_the_placed(seed: int, count: int, crops: int) -> None:
    rng = np.random.default_rng(seed)

    def some(width: float, height: float) -> Detections:
        low = rng.uniform(0, 0.9, (count, 2)) * [width, height]
        high = low + rng.uniform(0.01, 0.5, (count, 2)) * ([width, height] - low)
        return Detections(np.hstack([low, high]), rng.random(count), rng.integers(1, 3, count))

    whole = some(200, 100)
    parts = []
    for _ in range(crops):
        x1, y1 = int(rng.integers(0, 150)), int(rng.integers(0, 60))
        parts.append(((x1, y1, x1 + 50, y1 + 40), some(50, 40)))
    before = [part.boxes.copy() for _, part in parts]
    fused = fuse_image(whole, parts, SIZE)
    placed = [whole, *(into_image(part, window) for window, part in parts)]
    rows = {tuple(row) for part in placed for row in np.column_stack([part.boxes, part.scores])}
    assert {tuple(row) for row in np.column_stack([fused.boxes, fused.scores])} <= rows
    assert all(np.array_equal(a, part.boxes) for a, (_, part) in zip(before, parts, strict=True))
    swapped = fuse_image(whole, parts[::-1], SIZE)
    assert np.array_equal(fused.boxes, swapped.boxes)  # scores differ, so the order is given
