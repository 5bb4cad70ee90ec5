from __future__ import annotations

import numpy as np
import pytest

from dmnet.core.records import DensityMap
from dmnet.density.scale import map_stride, rescaled, scaled_image, scaled_size, shares


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((765, 1360), 640, (360, 640)),
        ((1360, 765), 640, (640, 360)),
        ((765, 1360), 0, (765, 1360)),
        ((512, 640), 640, (512, 640)),
        ((100, 200), 640, (100, 200)),  # never enlarged
        ((1, 4000), 640, (1, 640)),
    ],
)
def test_sizes_by_hand(size: tuple[int, int], long_side: int, expected: tuple[int, int]) -> None:
    assert scaled_size(size, long_side) == expected


def test_an_image_is_averaged_over_areas() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[0, 0], image[:, 2:] = 200, 40
    assert scaled_image(image, 2)[..., 0].tolist() == [[50, 40]]
    assert scaled_image(image, 4) is image


def test_shares_by_hand() -> None:
    old, new = np.array([0.0, 4.0, 6.0]), np.array([0.0, 3.0, 6.0])
    np.testing.assert_allclose(shares(old, new), [[0.75, 0], [0.25, 1]])


def test_a_map_of_half_the_size_by_hand() -> None:
    values = np.array([[1, 2, 3, 4], [0, 8, 0, 0]], np.float32)
    found = rescaled(DensityMap(values, 4, (8, 16)), (4, 8), 4)
    assert found.values.tolist() == [[11, 7]]
    assert (found.stride, found.size) == (4, (4, 8))


def test_a_map_of_twice_the_size_by_hand() -> None:
    values = np.array([[8, 4]], np.float32)
    found = rescaled(DensityMap(values, 4, (4, 8)), (8, 16), 4)
    assert found.values.tolist() == [[2, 2, 1, 1], [2, 2, 1, 1]]


def test_the_last_cell_ends_with_the_image() -> None:
    """6 pixels at stride 4: cells of 4 and 2 pixels; at twice the size 8 and 4, at stride 8."""
    found = rescaled(DensityMap(np.array([[6, 5]], np.float32), 4, (1, 6)), (2, 12), 8)
    assert found.values.tolist() == [[6, 5]]


@pytest.mark.parametrize("long_side", [512, 640, 896])
@pytest.mark.parametrize("size", [(765, 1360), (1050, 1400), (533, 799), (1361, 77)])
@pytest.mark.parametrize("stride", [4, 8])
def test_the_sum_is_kept_there_and_back(
    size: tuple[int, int], long_side: int, stride: int, rng: np.random.Generator
) -> None:
    cells = rng.random((-(-size[0] // 4), -(-size[1] // 4))).astype(np.float32)
    cells *= 80 / cells.sum()
    density = DensityMap(cells, 4, size)
    small = rescaled(density, scaled_size(size, long_side), stride)
    back = rescaled(small, size, map_stride(size, small.size, stride))
    assert small.count == pytest.approx(density.count, rel=1e-5)
    assert back.count == pytest.approx(density.count, rel=1e-5)


def test_the_same_size_and_stride_is_the_same_map() -> None:
    density = DensityMap(np.ones((2, 2), np.float32), 4, (8, 8))
    assert rescaled(density, (8, 8), 4) is density


@pytest.mark.parametrize(
    ("size", "scaled", "stride", "expected"),
    [
        ((765, 1360), (765, 1360), 4, 4),
        ((765, 1360), (360, 640), 4, 8),  # 8.5 pixels
        ((765, 1360), (360, 640), 8, 16),  # 17 pixels
        ((540, 960), (360, 640), 4, 4),  # 6 pixels
        ((2250, 4000), (360, 640), 8, 16),  # 50 pixels
    ],
)
def test_the_maps_stride_is_no_coarser_than_the_networks(
    size: tuple[int, int], scaled: tuple[int, int], stride: int, expected: int
) -> None:
    assert map_stride(size, scaled, stride) == expected
