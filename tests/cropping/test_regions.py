from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dmnet.core.boxes import Window
from dmnet.core.records import DensityMap
from dmnet.cropping import regions
from dmnet.cropping.windows import scan_windows


def scan_of(flags: object, window: int = 2, size: tuple[int, int] | None = None):
    """A scan whose window grid is `flags`, without shifted windows unless `size` says so."""
    array = np.asarray(flags, bool)
    size = size or (array.shape[0] * window, array.shape[1] * window)
    scan = scan_windows(DensityMap(np.zeros(size, np.float32), 1, size), (window, window))
    assert scan.sums.shape == array.shape
    return scan, array


def test_no_window_no_component() -> None:
    assert regions.components(*scan_of([[0, 0], [0, 0]]), connectivity=8) == []


def test_components_by_hand_in_scan_order() -> None:
    scan, passed = scan_of([[0, 0, 1], [1, 0, 1], [0, 1, 0]])
    assert regions.components(scan, passed, 4) == [(4, 0, 6, 4), (0, 2, 2, 4), (2, 4, 4, 6)]
    assert regions.components(scan, passed, 8) == [(0, 0, 6, 6)]


def test_scan_order_is_that_of_the_first_pixel_not_of_the_extent() -> None:
    scan, passed = scan_of([[0, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    assert regions.components(scan, passed, 4) == [(2, 0, 4, 2), (0, 2, 8, 6)]


def test_shifted_windows_overlap_and_join() -> None:
    scan, passed = scan_of([[0, 1, 0], [0, 0, 1]], size=(3, 5))  # rows at 0, 1; columns 0, 2, 3
    assert regions.components(scan, passed, 4) == [(2, 0, 5, 3)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([4, 8]))
def test_components_equal_pixel_labelling(seed: int, connectivity: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(5, 40)), int(rng.integers(5, 40))
    window = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    scan = scan_windows(DensityMap(rng.random(size).astype(np.float32), 1, size), window)
    passed = rng.random(scan.sums.shape) < 0.4
    mask = scan.cells(passed).repeat(np.diff(scan.y_edges), 0).repeat(np.diff(scan.x_edges), 1)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    labels, count = ndimage.label(mask, structure)
    first = [int(np.flatnonzero(labels == i + 1)[0]) for i in range(count)]
    extents = ndimage.find_objects(labels)
    expected = [
        (extents[i][1].start, extents[i][0].start, extents[i][1].stop, extents[i][0].stop)
        for i in np.argsort(first)
    ]
    assert regions.components(scan, passed, connectivity) == expected


@pytest.mark.parametrize(
    ("window", "expected"),
    [((0, 0, 70, 70), (0, 0, 70, 70)), ((70, 140, 210, 210), (69, 139, 210, 210))],
)
def test_reference_extent(window: Window, expected: Window) -> None:
    assert regions.reference_extent(window) == expected


def test_pad_and_grow_stay_inside() -> None:
    assert regions.pad((5, 1, 8, 9), 3, (10, 20)) == (2, 0, 11, 10)
    assert regions.grow((5, 4, 8, 6), 6, (10, 20)) == (4, 2, 10, 8)
    assert regions.grow((18, 0, 20, 1), 6, (10, 20)) == (14, 0, 20, 6)
    assert regions.grow((3, 3, 4, 4), 50, (10, 20)) == (0, 0, 20, 10)
    assert regions.grow((0, 0, 8, 8), 6, (10, 20)) == (0, 0, 8, 8)


def test_split_follows_the_valley_and_shrinks() -> None:
    values = np.ones((4, 16), np.float32)
    values[:, 6] = 0  # the cheapest cuts lie beside column 6; 7 is nearer to the middle
    cost = regions.density_cost(DensityMap(values, 1, (4, 16)))
    assert regions.split((0, 0, 16, 4), 10, cost, lambda w: w) == [(0, 0, 7, 4), (7, 0, 16, 4)]

    def upper(window: Window) -> Window | None:
        return None if window[0] >= 7 else (window[0], 0, window[2], 3)

    assert regions.split((0, 0, 16, 4), 10, cost, upper) == [(0, 0, 7, 3)]


def test_split_cuts_the_longer_side_at_the_middle_of_an_even_map() -> None:
    cost = regions.density_cost(DensityMap(np.ones((8, 3), np.float32), 1, (8, 3)))
    assert regions.split((0, 0, 3, 8), 4, cost, lambda w: w) == [(0, 0, 3, 4), (0, 4, 3, 8)]
    assert regions.split((0, 0, 3, 8), 8, cost, lambda w: w) == [(0, 0, 3, 8)]


def test_split_ends_when_parts_do_not_shrink() -> None:
    cost = regions.density_cost(DensityMap(np.ones((4, 8), np.float32), 1, (4, 8)))
    assert regions.split((0, 0, 8, 4), 2, cost, lambda w: (0, 0, 8, 4)) == [(0, 0, 8, 4)]


def test_density_cost_at_a_stride_reads_the_cells_under_the_pixels() -> None:
    density = DensityMap(np.array([[1, 2, 5]], np.float32), 2, (2, 6))
    cost = regions.density_cost(density)
    assert cost((1, 0, 5, 2), 1).tolist() == [1 + 2, 2 + 2, 2 + 5]
    assert cost((0, 0, 4, 2), 0).tolist() == [3 + 3]


def test_mask_shrink() -> None:
    scan, passed = scan_of([[0, 0, 0], [0, 1, 1], [0, 0, 0]])
    shrink = regions.mask_shrink(scan, passed)
    assert shrink((0, 0, 6, 6)) == (2, 2, 6, 4)
    assert shrink((0, 0, 3, 6)) == (2, 2, 3, 4)  # never larger than what was asked about
    assert shrink((0, 0, 2, 6)) is None


@pytest.mark.parametrize(
    ("windows", "overlap", "waste", "expected"),
    [
        ([], 0.5, 0.5, []),
        ([(0, 0, 4, 4)], 0.5, 0.5, [(0, 0, 4, 4)]),
        ([(0, 0, 4, 4), (4, 0, 8, 4)], 1, 0.01, [(0, 0, 8, 4)]),  # nothing wasted
        ([(0, 0, 4, 4), (4, 0, 8, 4)], 1, 0, [(0, 0, 4, 4), (4, 0, 8, 4)]),  # both rules off
        ([(0, 0, 4, 4), (6, 0, 10, 4)], 1, 0.2, [(0, 0, 4, 4), (6, 0, 10, 4)]),  # 8 of 40: 0.2
        ([(0, 0, 4, 4), (6, 0, 10, 4)], 1, 0.21, [(0, 0, 10, 4)]),
        ([(0, 0, 4, 4), (1, 1, 6, 6)], 0.5, 0, [(0, 0, 6, 6)]),  # 9 of 16 shared
        ([(0, 0, 4, 4), (1, 1, 6, 6)], 0.6, 0, [(0, 0, 4, 4), (1, 1, 6, 6)]),
        ([(4, 0, 8, 4), (0, 0, 4, 4), (0, 4, 8, 8)], 1, 0.1, [(0, 0, 8, 8)]),  # in two rounds
        ([(0, 0, 4, 4), (0, 0, 4, 4)], 1, 0, [(0, 0, 4, 4)]),  # the same crop twice
    ],
)
def test_merge(windows: list[Window], overlap: float, waste: float, expected: list[Window]) -> None:
    assert regions.merge(windows, overlap, waste) == expected


def test_merge_never_exceeds_the_limit() -> None:
    pair = [(0, 0, 4, 4), (4, 0, 8, 4)]
    assert regions.merge(pair, 0.5, 0.5, limit=7) == pair
    assert regions.merge(pair, 0.5, 0.5, limit=8) == [(0, 0, 8, 4)]


corner = st.integers(0, 30)
windows = st.lists(
    st.tuples(corner, corner, st.integers(1, 12), st.integers(1, 12)).map(
        lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3])
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(windows, st.floats(0, 1), st.floats(0, 0.9))
def test_merge_covers_is_stable_and_ignores_input_order(
    found: list[Window], overlap: float, waste: float
) -> None:
    merged = regions.merge(found, overlap, waste)
    for x1, y1, x2, y2 in found:
        assert any(a <= x1 and b <= y1 and c >= x2 and d >= y2 for a, b, c, d in merged)
    assert regions.merge(merged, overlap, waste) == merged
    assert regions.merge(found[::-1], overlap, waste) == merged
