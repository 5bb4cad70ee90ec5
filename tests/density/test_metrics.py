from __future__ import annotations

import numpy as np
import pytest

from dmnet.core.errors import ConfigError
from dmnet.core.records import DensityMap
from dmnet.density.metrics import MeanMap, count_errors, grid_error
from tests.written import pooled


def of(values: object, stride: int = 1) -> DensityMap:
    array = np.asarray(values, dtype=np.float32)
    return DensityMap(array, stride, (array.shape[0] * stride, array.shape[1] * stride))


def test_count_errors_by_hand() -> None:
    assert count_errors([1, 2], [1, 5]) == (1.5, pytest.approx(4.5**0.5))
    assert count_errors([3.0], [3.0]) == (0.0, 0.0)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1, 2]), ([[1]], [[1]])])
def test_count_errors_of_odd_rows(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="equally long"):
        count_errors(a, b)


def test_grid_error_finds_objects_in_the_wrong_place() -> None:
    left, right = of([[1, 0], [0, 0]]), of([[0, 1], [0, 0]])
    assert grid_error(left, right, 0) == 0
    assert grid_error(left, right, 1) == 2
    assert grid_error(left, left, 2) == 0


def test_grid_error_compares_maps_of_different_stride() -> None:
    fine = of(np.ones((8, 8)))
    assert grid_error(pooled(fine, 4), fine, 1) == pytest.approx(0)
    with pytest.raises(ValueError, match="different size"):
        grid_error(fine, of(np.ones((4, 4))))


def test_the_mean_map_keeps_the_mean_count(rng: np.random.Generator) -> None:
    maps = [of(rng.random((30, 50)), 4), of(np.zeros((64, 64)))]
    mean = MeanMap.fit(iter(maps))
    assert mean.count == pytest.approx(maps[0].count / 2)
    back = mean.at((765, 1360), 4)
    assert back.values.shape == (192, 340)
    assert back.count == pytest.approx(mean.count, rel=1e-5)


def test_the_mean_map_is_where_the_objects_were() -> None:
    values = np.zeros((16, 16))
    values[2, 13] = 1
    back = MeanMap.fit([of(values)]).at((16, 16), 1)
    assert np.unravel_index(back.values.argmax(), (16, 16)) == (2, 13)


def test_no_map_has_no_mean() -> None:
    with pytest.raises(ConfigError, match="empty"):
        MeanMap.fit([])
    assert MeanMap.fit([of(np.zeros((3, 3)))]).at((8, 8)).count == 0
