from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core.classes import VISDRONE
from dmnet.core.records import Annotations
from dmnet.cropping.recall import (
    GROUPS,
    UNIT,
    SliceCounts,
    count_crops,
    merge_counts,
    resize_factor,
)

FOUND = Annotations.of(
    "a",
    (100, 200),
    [
        [0, 0, 10, 10],  # small, whole in the first crop
        [40, 0, 60, 10],  # small, cut by the first, whole in the second
        [95, 20, 127, 52],  # medium (exactly 32 x 32), cut by the second, nowhere whole
        [90, 0, 190, 96],  # large, cut
        [150, 60, 160, 70],  # small, outside
        [0, 0, 100, 100],  # an ignored region: not counted
    ],
    [1, 4, 4, 9, 1, 0],
)
CROPS = [(0, 0, 50, 50), (30, 0, 100, 50)]


def row(counts: np.ndarray) -> dict[str, int]:
    return {name: int(n) for name, n in zip([*GROUPS, *VISDRONE.names], counts, strict=True) if n}


def test_counts_by_hand() -> None:
    c = count_crops(FOUND, CROPS)
    assert row(c.objects) == {
        "all": 5, "small": 3, "medium": 1, "large": 1, "pedestrian": 2, "car": 2, "bus": 1,
    }  # fmt: skip
    assert row(c.covered) == {"all": 2, "small": 2, "pedestrian": 1, "car": 1}
    assert row(c.cut) == {"all": 3, "small": 1, "medium": 1, "large": 1, "car": 2, "bus": 1}
    assert row(c.lost) == {"all": 2, "medium": 1, "large": 1, "car": 1, "bus": 1}
    assert (c.images, c.crops, c.pixels) == (1, 2, round(UNIT * (2500 + 3500) / 20000))


def test_scale_is_that_of_the_best_crop_that_shows_the_object_whole() -> None:
    c = count_crops(FOUND, CROPS, detector_input=(100, 120))
    first, second, image = 100 / 50, 120 / 70, 120 / 200
    assert c.scale == pytest.approx(UNIT * (first + second))
    assert c.whole_scale == pytest.approx(UNIT * 2 * image)
    assert c.side == pytest.approx(UNIT * (10 * first + 200**0.5 * second))


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 500), 2.0), ((500, 300), 2.0), ((100, 500), 2.0), ((600, 600), 1)]
)
def test_resize_factor(size: tuple[int, int], expected: float) -> None:
    assert resize_factor(size, (600, 1000)) == expected


def test_no_objects_and_no_crops() -> None:
    empty = count_crops(Annotations.of("a", (10, 10), [], []), CROPS[:0])
    assert (empty.images, empty.crops, empty.pixels, empty.scale) == (1, 0, 0, 0)
    assert not empty.objects.any()
    nothing = count_crops(FOUND, [])
    assert nothing.objects[0] == 5
    assert not (nothing.covered.any() or nothing.cut.any())
    assert merge_counts([]).images == 0


@given(st.permutations(range(6)), st.integers(0, 6))
def test_merging_is_exact_in_any_order_and_grouping(order: list[int], at: int) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(6):
        low = rng.uniform(0, 80, (7, 2))
        found = Annotations.of("a", (97, 103), np.hstack([low, low + 9.3]), rng.integers(0, 12, 7))
        parts.append(count_crops(found, [(0, 0, 41, 57), (13, 20, 100, 90)]))
    whole = merge_counts(parts)
    shuffled = [parts[i] for i in order]
    groups = merge_counts([merge_counts(shuffled[:at]), merge_counts(shuffled[at:])])
    for name in SliceCounts.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(groups, name))
