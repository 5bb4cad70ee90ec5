"""What crops are worth with a detector: passes, prices, frontier, break-even."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from dmnet.core.records import DensityMap, Detections, Image
from dmnet.cropping.slicers import CropConfig
from dmnet.detectors.packing import PackConfig
from dmnet.fusion.fuse import FuseConfig
from dmnet.pipeline.worth import measure as worth
from dmnet.pipeline.worth.figures import worth_figure
from dmnet.pipeline.worth.measure import Row, Setup


class Counting:
    """Finds nothing; remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []

    def input_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return 64, 64

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        self.shown += [(image.shape[0], image.shape[1]) for image in images]
        return [Detections.empty() for _ in images]


def ticking() -> Iterator[float]:
    yield from np.arange(1000) / 1000


def run(setups: list[Setup], detector: Counting) -> list[dict[str, float]]:
    ticks = ticking()
    found = worth.measure(
        np.zeros((100, 120, 3), np.uint8),
        None,
        lambda image: DensityMap(np.ones((25, 30), np.float32), 4, (100, 120)),
        detector,
        setups,
        lambda: next(ticks),
    )
    return [look.price for look in found]


def test_a_window_of_two_setups_is_detected_once_and_paid_twice() -> None:
    uniform = CropConfig.of(slicer="uniform", rows=1, cols=2)
    detector = Counting()
    rows = run([Setup("a", uniform), Setup("b", uniform)], detector)
    assert detector.shown == [(100, 120), (100, 60), (100, 60)]
    assert [row["passes"] for row in rows] == [3, 3]
    assert [row["detect_ms"] for row in rows] == pytest.approx([3, 3])
    assert [row["density_ms"] for row in rows] == [0, 0]
    assert rows[0]["crop_pixels"] == 100 * 120
    assert rows[0]["input_pixels"] == 3 * 64 * 64


def test_packed_crops_share_passes_and_density_is_paid_by_density_alone() -> None:
    grid = CropConfig.of(slicer="uniform", rows=2, cols=2)
    detector = Counting()
    pack = PackConfig(side=64, zoom=1.0, gap=0)
    plain, packed, dense = run(
        [Setup("u", grid), Setup("u", grid, pack), Setup("d", CropConfig.of(min_side=0))], detector
    )
    assert (plain["passes"], packed["passes"]) == (5, 5)  # 50x60 crops fill a canvas each
    assert plain["density_ms"] == 0 and dense["density_ms"] > 0


class Sided(Counting):
    def __init__(self, side: int = 64) -> None:
        super().__init__()
        self.side = side

    def input_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side

    def at_side(self, side: int) -> Sided:
        return Sided(side)


def test_a_larger_look_at_the_whole_image_costs_its_pixels() -> None:
    grid, pack = CropConfig.of(slicer="uniform", rows=2, cols=2), PackConfig(side=64, gap=0)
    setups = [Setup("u", grid, pack), Setup("u", grid, pack, whole_side=128)]
    detector = Sided()
    small, large = run(setups, detector)
    assert (small["passes"], large["passes"]) == (5, 5)
    assert small["input_pixels"] == 5 * 64 * 64
    assert large["input_pixels"] == 4 * 64 * 64 + 128 * 128
    assert len(detector.shown) == 5  # packed windows of both setups were seen once
    assert Row("u", "-", True, {}, 128).title == "u, packed, whole at 128"


def test_fused_shifts_crops_into_the_image() -> None:
    one = Detections(np.array([[0, 0, 4, 4]]), np.array([0.5]), np.array([1]))
    found = worth.fused([[10, 20, 50, 60]], [Detections.empty(), one], (100, 100), FuseConfig())
    assert found.boxes.tolist() == [[10, 20, 14, 24]]


def row(name: str, ap: float, passes: float, density: float, detect: float) -> Row:
    figures = {"AP": ap, "passes": passes, "density_ms": density, "detect_ms": detect,
               "fuse_ms": 1.0, "pixels": 0.5, "input_pixels": 100 * passes}  # fmt: skip
    return Row(name, "threshold 0.1", False, figures)


def test_frontier() -> None:
    rows = [row("a", 0.2, 1, 0, 10), row("b", 0.2, 1, 0, 20), row("c", 0.3, 1, 0, 30)]
    assert worth.frontier(rows) == [True, False, True]
    assert worth.frontier([]) == []


def test_break_even() -> None:
    grid = row("grid", 0.25, 9, 0, 90)
    assert worth.break_even(row("density", 0.25, 4, 100, 40), grid) == pytest.approx(20)
    assert worth.break_even(row("density", 0.25, 9, 100, 90), grid) is None
    assert worth.break_even(row("density", 0.25, 4, 0, 40), grid) == 0
    large = row("density", 0.25, 4, 100, 40)
    large.figures["input_pixels"] = 700  # as 7 passes of the grid
    assert worth.break_even(large, grid) == pytest.approx(50)


def test_means_per_image() -> None:
    prices = [{**worth.Price(crops=2, crop_pixels=50, detect_ms=3.0).row, "passes": 3.0},
              {**worth.Price().row, "passes": 1.0}]  # fmt: skip
    figures = worth.figures_of(prices, 100)
    assert figures["crops"] == 1 and figures["passes"] == 2 and figures["pixels"] == 0.5
    assert figures["detect_ms"] == 1.5 and figures["padded"] == 0
    assert worth.figures_of([], 0)["crops"] == 0


def test_the_figure_is_a_png() -> None:
    rows = [row("density", 0.2, 1, 5, 10), row("grid", 0.1, 1, 0, 10)]
    assert worth_figure(rows, [True, True], "ms", "title").startswith(b"\x89PNG")
    assert worth_figure(rows, [True, True], "pixels", "title").startswith(b"\x89PNG")
