from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmnet.core.errors import ConfigError
from dmnet.core.records import DensityMap
from dmnet.cropping.windows import rectangle_sums, scan_windows, starts


def full_map(values: object) -> DensityMap:
    array = np.asarray(values, np.float32)
    return DensityMap(array, 1, array.shape)  # type: ignore[arg-type]


def per_pixel(density: DensityMap) -> np.ndarray:
    """Each cell's count spread evenly over its pixels inside the image."""
    s, (h, w) = density.stride, density.size
    big = density.values.repeat(s, axis=0).repeat(s, axis=1)[:h, :w]
    tall = np.minimum(s, h - np.arange(0, h, s)).repeat(s)[:h].astype(np.float32)
    wide = np.minimum(s, w - np.arange(0, w, s)).repeat(s)[:w].astype(np.float32)
    return big / (tall[:, None] * wide[None, :])


@pytest.mark.parametrize(
    ("length", "window", "step", "expected"),
    [
        (4, 2, None, [0, 2]),
        (5, 2, None, [0, 2, 3]),
        (6, 4, None, [0, 2]),
        (2, 2, None, [0]),
        (1, 2, None, [0]),
        (5, 3, 1, [0, 1, 2]),
        (765, 70, None, [*range(0, 695, 70), 695]),
        (1400, 70, None, list(range(0, 1400, 70))),
    ],
)
def test_starts(length: int, window: int, step: int | None, expected: list[int]) -> None:
    assert starts(length, window, step).tolist() == expected


def test_starts_refuses_an_empty_window() -> None:
    with pytest.raises(ConfigError, match="at least 1 pixel"):
        starts(5, 0)


def test_sums_by_hand() -> None:
    scan = scan_windows(full_map([[1, 0, 2, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 4, 0]]), (2, 2))
    assert scan.top.tolist() == [0, 1]
    assert scan.left.tolist() == [0, 2, 3]
    assert scan.sums.tolist() == [[2, 2, 2], [1, 4, 5]]
    assert scan.sums.dtype == np.float64


def test_mask_is_the_union_of_passed_windows() -> None:
    scan = scan_windows(full_map([[1, 0, 2, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 4, 0]]), (2, 2))
    assert scan.passed(5).tolist() == [[False] * 3, [False, False, True]]
    assert scan.mask(5).astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
    ]


def test_a_sum_equal_to_the_threshold_passes() -> None:
    assert scan_windows(full_map([[0.08]]), (70, 70)).passed(0.08).all()
    even = np.full((70, 70), 0.08 / 4900, np.float32)
    assert scan_windows(full_map(even), (70, 70)).passed(0.08).all()
    assert not scan_windows(full_map(even), (70, 70)).passed(0.08001).any()


def test_a_map_smaller_than_the_window_is_one_window() -> None:
    scan = scan_windows(full_map([[1, 2], [3, 4]]), (70, 70))
    assert scan.sums.tolist() == [[10]]
    assert scan.window == (2, 2)
    assert scan.mask(10).all()


def test_a_border_inside_a_cell_takes_its_share() -> None:
    density = DensityMap(np.array([[8, 4]], np.float32), 4, (2, 6))  # second cell: 2 x 2 pixels
    scan = scan_windows(density, (2, 3))
    assert scan.sums.tolist() == [[6, 2 + 4]]
    edges = np.array([0, 1, 5, 6])
    assert rectangle_sums(density, np.array([0, 2]), edges).tolist() == [[2, 6 + 2, 2]]


sides = st.integers(1, 23)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_any_stride_equals_the_upsampled_map(
    height: int, width: int, wh: int, ww: int, sy: int, sx: int, stride: int
) -> None:
    rng = np.random.default_rng(height * 31 + width)
    shape = -(-height // stride), -(-width // stride)
    density = DensityMap(rng.random(shape).astype(np.float32), stride, (height, width))
    scan = scan_windows(density, (wh, ww), (sy, sx))
    full = per_pixel(density).astype(np.float64)
    expected = [
        [full[y : y + wh, x : x + ww].sum() for x in starts(width, ww, sx)]
        for y in starts(height, wh, sy)
    ]
    np.testing.assert_allclose(scan.sums, expected, rtol=1e-5)
    level = float(np.median(scan.sums))
    mask = np.zeros((height, width), bool)
    for row, col in zip(*np.nonzero(scan.passed(level)), strict=True):
        mask[scan.top[row] :, scan.left[col] :][:wh, :ww] = True
    np.testing.assert_array_equal(scan.mask(level), mask)
