from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmnet.core import boxes as box
from dmnet.core.config import build, resolved
from dmnet.core.config_help import describe
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.records import Annotations, DensityMap
from dmnet.cropping.regions import window_area
from dmnet.cropping.slicers import SLICERS, CropConfig, slice_image
from dmnet.cropping.tiles import GridCrops

PLAIN = CropConfig.of(padding=0, min_side=0, max_side=None, merge_overlap=1.0, merge_waste=0.0)
REFERENCE = CropConfig.of(preset="reference")
NOTHING = Annotations.of("a", (300, 400), [], [])


def points_map(points: list[tuple[int, int]], size: tuple[int, int], stride: int = 1) -> DensityMap:
    values = np.zeros(tuple(-(-side // stride) for side in size), np.float32)
    for x, y in points:
        values[y // stride, x // stride] += 1
    return DensityMap(values, stride, size)


@pytest.mark.parametrize("slicer", sorted(SLICERS))
@pytest.mark.parametrize("preset", ["corrected", "reference"])
def test_an_image_without_any_object(slicer: Any, preset: Any) -> None:
    config = CropConfig.of(slicer=slicer, preset=preset)
    empty = DensityMap(np.zeros((300, 400), np.float32), 1, (300, 400))
    crops = slice_image(config, (300, 400), empty, NOTHING)
    assert len(crops) == {"uniform": 6, "grid": 1}.get(slicer, 0)


def test_uniform_by_hand() -> None:
    config = CropConfig.of(slicer="uniform", rows=2, cols=3)
    assert slice_image(config, (5, 7)) == [
        (0, 0, 2, 2), (2, 0, 4, 2), (4, 0, 7, 2), (0, 2, 2, 5), (2, 2, 4, 5), (4, 2, 7, 5),
    ]  # fmt: skip
    assert slice_image(config, (1, 2)) == [(0, 0, 1, 1), (1, 0, 2, 1)]


def test_grid_by_hand() -> None:
    config = CropConfig.of(slicer="grid", tile=4, overlap=0.5)
    assert slice_image(config, (4, 9)) == [(0, 0, 4, 4), (2, 0, 6, 4), (4, 0, 8, 4), (5, 0, 9, 4)]
    assert slice_image(config, (3, 2)) == [(0, 0, 2, 3)]


def test_reference_density_by_hand() -> None:
    density = points_map([(75, 75), (300, 299)], (300, 400))
    crops = slice_image(REFERENCE, density.size, density)
    assert crops == [(69, 69, 140, 140), (279, 229, 350, 300)]


def test_reference_joins_sides_but_not_corners() -> None:
    corner = points_map([(75, 75), (145, 145)], (300, 400))
    assert len(slice_image(REFERENCE, corner.size, corner)) == 2
    assert slice_image(PLAIN, corner.size, corner) == [(70, 70, 210, 210)]
    side = points_map([(75, 75), (145, 75)], (300, 400))
    assert slice_image(REFERENCE, side.size, side) == [(69, 69, 210, 140)]


def test_reference_ignores_the_settings_of_the_other_preset() -> None:
    density = points_map([(75, 75)], (300, 400))
    odd = REFERENCE.having(
        padding=9, min_side=99, max_side=120, max_crops=1, pixel_budget=0.01, min_objects=99
    )
    assert slice_image(odd, density.size, density) == [(69, 69, 140, 140)]
    assert (odd.label_bound, PLAIN.label_bound) == (1.0, 0.5)


@pytest.mark.parametrize("config", [REFERENCE, PLAIN])
def test_small_components_are_dropped(config: CropConfig) -> None:
    tiny = points_map([(5, 5)], (60, 60))
    assert slice_image(config, tiny.size, tiny) == []
    assert slice_image(config.having(min_area=0), tiny.size, tiny) == [(0, 0, 60, 60)]


def test_corrected_pads_lengthens_and_stays_inside() -> None:
    density = points_map([(5, 5)], (300, 400))
    padded = PLAIN.having(padding=20)
    assert slice_image(padded, density.size, density) == [(0, 0, 90, 90)]
    assert slice_image(padded.having(min_side=200), density.size, density) == [(0, 0, 200, 200)]


def test_corrected_splits_at_the_valley_and_never_merges_back() -> None:
    clusters = [(x, 100) for x in (*range(5, 140, 7), *range(215, 400, 7))]
    bridge = [(175, 100)]
    density = points_map(clusters + bridge, (300, 400))
    assert slice_image(PLAIN, density.size, density) == [(0, 70, 400, 140)]
    left, right = slice_image(
        PLAIN.having(max_side=260, merge_waste=0.5, merge_overlap=0.1), density.size, density
    )
    assert left[0] == 0 and right[2] == 400
    assert left[2] <= 210 and right[0] >= 138


def test_a_stride_4_map_gives_the_same_crops() -> None:
    points = [(33, 41), (120, 66), (301, 222), (377, 280)]
    full = points_map(points, (300, 400))
    for config in (PLAIN, REFERENCE, CropConfig()):
        assert slice_image(config, full.size, full) == slice_image(
            config, full.size, points_map(points, (300, 400), 4)
        )


def test_max_crops_keeps_the_heaviest() -> None:
    points = [(30, 30)] * 3 + [(350, 30)] * 2 + [(350, 250)]
    density = points_map(points, (300, 400))
    for most, expected in ((1, [(0, 0, 70, 70)]), (2, [(0, 0, 70, 70), (330, 0, 400, 70)])):
        config = PLAIN.having(max_crops=most)
        assert slice_image(config, density.size, density) == expected
    assert len(slice_image(PLAIN.having(max_crops=9), density.size, density)) == 3


def test_min_objects_drops_crops_that_are_not_worth_a_pass() -> None:
    points = [(30, 30)] * 3 + [(350, 30)] * 2 + [(350, 250)]
    density = points_map(points, (300, 400))
    assert len(slice_image(PLAIN.having(min_objects=0.5), density.size, density)) == 3
    kept = slice_image(PLAIN.having(min_objects=1.5), density.size, density)
    assert kept == [(0, 0, 70, 70), (330, 0, 400, 70)]
    assert slice_image(PLAIN.having(min_objects=3.5), density.size, density) == []


def test_pixel_budget_fills_with_the_densest() -> None:
    points = [(30, 30)] * 3 + [(350, 30)] * 2 + [(350, 250)]
    density = points_map(points, (300, 400))
    two = PLAIN.having(pixel_budget=2 * 4900 / 120000)
    assert slice_image(two, density.size, density) == [(0, 0, 70, 70), (330, 0, 400, 70)]
    assert slice_image(two.having(max_crops=1), density.size, density) == [(0, 0, 70, 70)]
    assert slice_image(two.having(pixel_budget=0.01), density.size, density) == []


def test_oracle_holds_every_object_tightly() -> None:
    found = Annotations.of(
        "a",
        (300, 400),
        [[10, 20, 30, 40.5], [200, 150, 390, 290], [50, 30, 60, 40], [0, 250, 9, 300]],
        [1, 4, 10, 0],
    )
    config = CropConfig.of("oracle", **PLAIN.own)
    assert slice_image(config, (300, 400), None, found) == [(10, 20, 60, 41), (200, 150, 390, 290)]
    padded = slice_image(config.having(padding=20), (300, 400), None, found)
    assert padded == [(0, 0, 80, 61), (180, 130, 400, 300)]


def test_oracle_splits_between_objects() -> None:
    found = Annotations.of(
        "a", (100, 400), [[x, 5, x + 60, 65] for x in range(0, 340, 66)], [4] * 6
    )
    config = CropConfig.of("oracle", **{**PLAIN.own, "max_side": 220})
    crops = slice_image(config, (100, 400), None, found)
    assert len(crops) > 1
    assert all(any(box.inside(found.boxes[[i]], w)[0] for w in crops) for i in range(6))


@pytest.mark.parametrize("slicer", ["density", "oracle"])
def test_a_missing_input_names_the_way_out(slicer: Any) -> None:
    with pytest.raises(MissingInputError, match=r"needs .* --crop\.slicer"):
        slice_image(CropConfig.of(slicer=slicer), (100, 100))


def test_a_map_of_another_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"density map is for an image of 60x60 .* has 61x60"):
        slice_image(CropConfig(), (61, 60), points_map([], (60, 60)))
    with pytest.raises(ConfigError, match="annotations is for an image of 300x400"):
        slice_image(CropConfig.of(slicer="none"), (61, 60), None, NOTHING)
    with pytest.raises(ConfigError, match="at least one pixel"):
        slice_image(CropConfig.of(slicer="uniform"), (0, 60))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": (0, 70)}, "window"),
        ({"window": (70, 70, 70)}, "window"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"padding": -1}, "padding"),
        ({"slicer": "uniform", "rows": 0}, "crop.rows must be 1 to 1,000, got 0"),
        ({"slicer": "grid", "tile": 0}, "tile"),
        ({"slicer": "grid", "overlap": 1.0}, "overlap"),
        ({"tile": float("nan")}, "crop.tile: must be a whole number, got nan"),
        ({"own": {"rows": 2}}, "crop.rows: no such setting"),
        ({"treshold": 1}, "crop.treshold: no such setting; did you mean 'threshold'"),
        ({"slicer": "grid", "tyle": 1}, "did you mean 'tile'"),
        ({"min_visible": 1.5}, "min_visible"),
        ({"merge_waste": -0.1}, "merge_waste"),
        ({"max_side": 100}, "max_side 100 is too small for min_side 200"),
        ({"max_side": 200, "padding": 100}, "twice padding"),
        ({"max_crops": 0}, "max_crops"),
        ({"pixel_budget": 0.0}, "pixel_budget"),
        ({"min_area": -1}, "min_area"),
        ({"slicer": "sahi"}, "slicer"),
        ({"preset": "paper"}, "preset"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CropConfig.of(**settings)


def test_a_slicer_has_its_own_settings_and_leaves_out_those_of_others() -> None:
    config = CropConfig.of("grid", tile=64, threshold=0.5)  # a preset suits every slicer
    assert config.settings == GridCrops(tile=64) and config.own == {"tile": 64, "overlap": 0.2}
    assert resolved(config) == {"slicer": "grid", "min_visible": 0.5, "tile": 64, "overlap": 0.2}
    assert build(CropConfig, resolved(config), "crop") == config
    assert config.having(overlap=0.5).settings == GridCrops(64, 0.5)
    assert CropConfig.of(preset="reference").label_bound == 1 == CropConfig.of().label_bound * 2
    texts = {name: text for name, _, text in describe(CropConfig, "crop")}
    assert texts["--crop.tile"].endswith("(slicer grid)")
    assert texts["--crop.padding"].endswith("(slicer density, oracle)")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["density", "uniform", "grid", "oracle"]),
    st.sampled_from([None, 90, 150]),
    st.sampled_from([None, 0.2]),
)
def test_crops_are_inside_in_order_and_within_their_limits(
    seed: int, slicer: Any, max_side: int | None, budget: float | None
) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(60, 320)), int(rng.integers(60, 320))
    low = rng.integers(0, [size[1] - 10, size[0] - 10], (9, 2))
    found = Annotations.of("a", size, np.hstack([low, low + 10]), rng.integers(0, 12, 9))
    density = points_map([(int(x) + 5, int(y) + 5) for x, y in low], size, int(rng.integers(1, 6)))
    config = CropConfig.of(
        slicer=slicer, padding=5, min_side=80, max_side=max_side, merge_overlap=0.5,
        merge_waste=0.3, pixel_budget=budget,
    )  # fmt: skip
    crops = slice_image(config, size, density, found)
    assert crops == slice_image(config, size, density, found)
    assert len(set(crops)) == len(crops)
    assert [(y1, x1) for x1, y1, _, _ in crops] == sorted((y1, x1) for x1, y1, _, _ in crops)
    for x1, y1, x2, y2 in crops:
        assert 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]
        if slicer in ("density", "oracle") and max_side:
            assert max(x2 - x1, y2 - y1) <= max_side
    if slicer == "density" and budget is not None:
        assert sum(map(window_area, crops)) <= budget * size[0] * size[1]
    if slicer == "oracle":
        shown = np.array([box.inside(found.objects.boxes, w) for w in crops])
        assert shown.any(axis=0).all() if max_side is None else True
