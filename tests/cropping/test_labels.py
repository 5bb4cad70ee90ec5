from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmnet.core import boxes as box
from dmnet.core.records import Annotations, Crop
from dmnet.cropping.labels import crop_annotations, crop_file_name, crop_id

WINDOW = (10, 20, 50, 60)


def test_names_are_top_left_bottom_right() -> None:
    assert crop_file_name(WINDOW, "9999.jpg_a") == "20_10_60_50_9999.jpg_a.jpg"
    assert crop_id(WINDOW, "b") == "20_10_60_50_b"


def test_no_annotations() -> None:
    cut = crop_annotations(Annotations.of("a", (100, 100), [], []), WINDOW, 0.5)
    assert (len(cut), cut.size, cut.image_id) == (0, (40, 40), "20_10_60_50_a")


BOXES = [
    [10, 20, 20, 30],  # fully inside, at the corner
    [0, 20, 20, 30],  # half inside
    [5, 20, 25, 30],  # three quarters
    [0, 0, 10, 20],  # touches the corner from outside
    [0, 30, 30, 40],  # two thirds, ignored region
    [45, 55, 65, 75],  # 1 / 16
    [45, 30, 55, 40],  # half, category others
]
LABELS = [1, 4, 5, 6, 0, 9, 11]


def test_rows_by_hand_at_one_half() -> None:
    cut = crop_annotations(Annotations.of("a", (100, 100), BOXES, LABELS), WINDOW, 0.5)
    assert cut.labels.tolist() == [1, 4, 5, 0, 0, 11]
    assert cut.score.tolist() == [1, 1, 1, 0, 0, 0]
    assert cut.boxes.tolist() == [
        [0, 0, 10, 10],
        [0, 0, 10, 10],
        [0, 0, 15, 10],
        [0, 10, 20, 20],
        [35, 35, 40, 40],
        [35, 10, 40, 20],
    ]


def test_reference_keeps_only_what_is_fully_inside() -> None:
    cut = crop_annotations(Annotations.of("a", (100, 100), BOXES, LABELS), WINDOW)
    assert cut.labels.tolist() == [1, 0, 0, 0, 0, 0]
    assert cut.ignore.tolist() == [False] + [True] * 5


def test_columns_stay_parallel_and_the_source_is_untouched() -> None:
    source = Annotations(
        "a", (100, 100), np.array(BOXES[:3], float), np.array([1, 4, 5]), np.array([1, 0, 1]),
        np.array([0, 1, 1]), np.array([2, 1, 0]),
    )  # fmt: skip
    before = source.boxes.copy()
    cut = crop_annotations(source, (10, 0, 22, 60), 0.5)
    assert cut.score.tolist() == [1, 0, 1]
    assert cut.truncation.tolist() == [0, 1, 1]
    assert cut.occlusion.tolist() == [2, 1, 0]
    np.testing.assert_array_equal(source.boxes, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_kept_boxes_are_the_visible_parts(seed: int, bound: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 90, (12, 2))
    source = Annotations.of(
        "a", (100, 100), np.hstack([low, low + rng.integers(1, 10, (12, 2))]),
        rng.integers(0, 12, 12),
    )  # fmt: skip
    x1, y1 = (int(v) for v in rng.integers(0, 60, 2))
    crop = Crop("a", (x1, y1, x1 + 40, y1 + 30))
    cut = crop_annotations(source, crop.window, bound)
    share = box.visible(source.boxes, crop.window)
    assert len(cut) == (share > 0).sum()
    seen = source[share > 0]
    kept = share[share > 0] >= bound
    np.testing.assert_array_equal(cut.labels, np.where(kept, seen.labels, 0))
    np.testing.assert_allclose(box.area(cut.boxes), box.area(seen.boxes) * share[share > 0])
    assert box.inside(crop.to_image(cut.boxes), crop.window).all()


def test_the_bound_of_one_has_no_rounding_fault() -> None:
    third = [[0.1, 0.2, 7.3, 9.7]]
    cut = crop_annotations(Annotations.of("a", (10, 10), third, [1]), (0, 0, 10, 10), 1.0)
    assert cut.labels.tolist() == [1]
    assert cut.boxes == pytest.approx(np.array(third))
