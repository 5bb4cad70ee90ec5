from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmnet.core.errors import ConfigError
from dmnet.core.formats.visdrone import read_annotations
from dmnet.core.records import Annotations
from dmnet.density.ground_truth import (
    AUTHORS_SIGMAS,
    Preset,
    SigmaConfig,
    above_bank,
    class_sigmas,
    density_map,
    neighbour_distances,
    points,
    sigmas,
)
from dmnet.density.kernels import KernelBank
from tests.written import pooled

BANK = KernelBank.build()


def at(size: tuple[int, int], *centres: tuple[int, int], labels: object = None) -> Annotations:
    """Objects with boxes of 2 x 2 px around the given (x, y)."""
    boxes = [[x - 1, y - 1, x + 1, y + 1] for x, y in centres]
    return Annotations.of("a", size, boxes, labels or [1] * len(boxes))


# points


def test_points_are_truncated_centres_of_the_ten_classes() -> None:
    boxes = [[0, 0, 5, 4], [0, 0, 3, 3], [2, 2, 8, 8]]
    found = points(Annotations.of("a", (10, 10), boxes, [1, 0, 11]))
    np.testing.assert_array_equal(found, [[2, 2]])
    assert found.dtype == np.int64


def test_points_are_clipped_into_the_image() -> None:
    found = points(Annotations.of("a", (4, 6), [[4, 4, 10, 10], [-9, -9, 1, 1]], [1, 10]))
    np.testing.assert_array_equal(found, [[5, 3], [0, 0]])


def test_no_object_has_no_point() -> None:
    assert points(at((4, 4))).shape == (0, 2)


# sigmas


def test_fixed_sigma() -> None:
    np.testing.assert_array_equal(sigmas(at((9, 9), (1, 1), (3, 3)), SigmaConfig()), [15, 15])


def test_classwise_sigma() -> None:
    some = at((9, 9), (1, 1), (3, 3), (4, 4), labels=[1, 9, 10])
    np.testing.assert_array_equal(sigmas(some, SigmaConfig("classwise")), [17, 46, 18])


def test_geometry_is_a_tenth_of_the_mean_distance_to_three_others() -> None:
    row = at((9, 400), (0, 5), (10, 5), (30, 5), (60, 5), (100, 5))
    np.testing.assert_allclose(
        sigmas(row, SigmaConfig("geometry")), [10 / 3, 8 / 3, 8 / 3, 12 / 3, 20 / 3]
    )
    wide = SigmaConfig("geometry", factor=0.3, neighbours=1)
    np.testing.assert_allclose(sigmas(row, wide), [3, 3, 6, 9, 12])


def test_geometry_of_few_points_takes_those_there_are() -> None:
    geometry = SigmaConfig("geometry")
    np.testing.assert_allclose(sigmas(at((9, 90), (0, 5), (30, 5)), geometry), [3, 3])
    three = at((9, 90), (0, 5), (30, 5), (40, 5))
    np.testing.assert_allclose(sigmas(three, geometry), [3.5, 2.0, 2.5])
    np.testing.assert_array_equal(sigmas(at((9, 90), (4, 4)), geometry), [15])
    assert len(sigmas(at((9, 90)), geometry)) == 0


def test_reference_geometry_of_two_or_three_points_is_infinite() -> None:
    geometry = SigmaConfig("geometry")
    for some in (at((9, 90), (0, 5), (30, 5)), at((9, 90), (0, 5), (30, 5), (40, 5))):
        assert np.isinf(sigmas(some, geometry, preset="reference")).all()
    one = at((9, 90), (4, 4))
    np.testing.assert_array_equal(sigmas(one, geometry, preset="reference"), [15])


def test_reference_nearest_is_the_distance_in_the_image() -> None:
    two = at((99, 99), (10, 10), (13, 14), labels=[1, 10])
    np.testing.assert_allclose(sigmas(two, SigmaConfig("nearest"), preset="reference"), [5, 5])


def test_reference_geometry_measures_over_the_class_too() -> None:
    some = at((9, 90), (0, 0), (3, 0), labels=[1, 5])
    one = SigmaConfig("geometry", neighbours=1, factor=1)
    np.testing.assert_allclose(sigmas(some, one, preset="reference"), [5, 5])
    np.testing.assert_allclose(sigmas(some, one), [3, 3])


def test_nearest_sigma_is_the_distance_itself() -> None:
    row = at((9, 90), (0, 5), (7, 5), (30, 5))
    np.testing.assert_allclose(sigmas(row, SigmaConfig("nearest")), [7, 7, 23])
    np.testing.assert_array_equal(sigmas(at((9, 9), (1, 1)), SigmaConfig("nearest")), [15])


def test_distances_to_the_nearest_others() -> None:
    row = at((9, 90), (0, 5), (7, 5), (30, 5))
    found = neighbour_distances(row, SigmaConfig())
    np.testing.assert_array_equal(found, [[7, 30, np.inf], [7, 23, np.inf], [23, 30, np.inf]])
    assert neighbour_distances(at((9, 9)), SigmaConfig(neighbours=2)).shape == (0, 2)


@pytest.mark.parametrize("preset", ["corrected", "reference"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_another_rule_takes_the_distances_of_the_first(preset: Preset, count: int) -> None:
    rng = np.random.default_rng(count)
    some = at(
        (99, 99), *rng.integers(1, 98, (count, 2)).tolist(), labels=[1 + i for i in range(count)]
    )
    kept = neighbour_distances(some, SigmaConfig(), preset=preset)
    for rule in (SigmaConfig("geometry"), SigmaConfig("geometry", neighbours=1, factor=0.3)):
        np.testing.assert_array_equal(
            sigmas(some, rule, preset=preset, distances=kept), sigmas(some, rule, preset=preset)
        )


def test_more_neighbours_than_are_stored_are_refused() -> None:
    row = at((9, 90), (0, 5), (7, 5), (30, 5))
    kept = neighbour_distances(row, SigmaConfig(neighbours=2))
    with pytest.raises(ConfigError, match="5 are asked for, but distances to 2 are stored"):
        sigmas(row, SigmaConfig("geometry", neighbours=5), distances=kept)


def test_objects_in_one_place_meet_the_lower_bound() -> None:
    same = at((9, 9), (4, 4), (4, 4))
    np.testing.assert_array_equal(sigmas(same, SigmaConfig("nearest")), [0, 0])
    np.testing.assert_array_equal(sigmas(same, SigmaConfig("nearest", min_sigma=2)), [2, 2])
    assert density_map(same, BANK, SigmaConfig("nearest")).values[4, 4] == 2


@pytest.mark.parametrize(
    "values",
    [{"fixed": -1.0}, {"factor": float("nan")}, {"neighbours": 0}, {"class_sigmas": (-1.0,)}],
)
def test_settings_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SigmaConfig(**values)  # type: ignore[arg-type]


# maps


def test_one_object_by_hand() -> None:
    narrow = SigmaConfig(fixed=0.25)  # radius 1
    kernel = BANK[0.25]
    found = density_map(at((5, 6), (2, 3)), BANK, narrow)
    expected = np.zeros((5, 6))
    expected[2:5, 1:4] = kernel
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert found.values.dtype == np.float32
    assert (found.stride, found.size) == (1, (5, 6))


def test_a_corner_in_both_presets() -> None:
    corner = at((40, 40), (0, 0))
    config = SigmaConfig(fixed=2)
    assert density_map(corner, BANK, config).count == pytest.approx(1, abs=1e-6)
    # "about 0.51 at an edge, 0.26 in a corner": at sigma 15
    wide = at((765, 1360), (0, 0))
    assert density_map(wide, BANK, preset="reference").count == pytest.approx(0.26, abs=0.01)
    edge = at((765, 1360), (600, 0))
    assert density_map(edge, BANK, preset="reference").count == pytest.approx(0.51, abs=0.01)
    inside = at((765, 1360), (600, 300))
    assert density_map(inside, BANK, preset="reference").count == pytest.approx(1, abs=1e-6)


def test_reference_leaves_the_last_row_and_column_empty() -> None:
    last = at((20, 30), (29, 19), (15, 10))
    reference = density_map(last, BANK, SigmaConfig(fixed=3), preset="reference").values
    assert not reference[-1].any() and not reference[:, -1].any()
    assert reference[-2, -2] > 0
    corrected = density_map(last, BANK, SigmaConfig(fixed=3)).values
    assert corrected[-1, -1] > 0


def test_reference_refuses_wide_sigmas_on_request() -> None:
    one = at((99, 99), (40, 40), labels=[6])
    wide = SigmaConfig("classwise")
    twenty = density_map(one, BANK, SigmaConfig(fixed=20), preset="reference").values
    np.testing.assert_array_equal(density_map(one, BANK, wide, preset="reference").values, twenty)
    np.testing.assert_array_equal(above_bank(sigmas(one, wide, preset="reference"), BANK), [True])
    with pytest.raises(ConfigError, match="is above the largest of the kernel bank"):
        density_map(one, BANK, SigmaConfig("classwise", above="error"), preset="reference")
    two = at((99, 99), (40, 40), (60, 60))  # infinite, not too large
    asked = SigmaConfig("geometry", above="error")
    assert density_map(two, BANK, asked, preset="reference").count > 0


def test_reference_takes_the_largest_kernel_for_infinite_sigmas() -> None:
    two = at((400, 400), (200, 200), (210, 200))
    found = density_map(two, BANK, SigmaConfig("geometry"), preset="reference").values
    twenty = density_map(two, BANK, SigmaConfig(fixed=20), preset="reference").values
    np.testing.assert_array_equal(found, twenty)


def test_above_the_bank_is_extended_or_an_error() -> None:
    one = at((400, 400), (200, 200), labels=[9])
    assert density_map(one, BANK, SigmaConfig("classwise")).count == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="above the largest"):
        density_map(one, BANK, SigmaConfig("classwise", above="error"))


@pytest.mark.parametrize("preset", ["corrected", "reference"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 5)])
def test_images_smaller_than_a_kernel(size: tuple[int, int], preset: str) -> None:
    found = density_map(at(size, (0, 0)), BANK, preset=preset)  # type: ignore[arg-type]
    assert found.values.shape == size
    assert np.isfinite(found.values).all()
    if preset == "corrected":
        assert found.count == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("method", ["fixed", "geometry", "nearest", "classwise"])
def test_an_image_without_object_is_an_empty_map(method: str, stride: int) -> None:
    found = density_map(at((9, 10)), BANK, SigmaConfig(method), stride=stride)  # type: ignore[arg-type]
    assert not found.values.any()


many = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 60)), max_size=12)


@settings(deadline=None, max_examples=60)
@given(many, st.sampled_from(["fixed", "geometry", "nearest", "classwise"]), st.integers(1, 9))
def test_a_corrected_map_sums_to_the_objects(
    centres: list[tuple[int, int]], method: str, stride: int
) -> None:
    config = SigmaConfig(method)  # type: ignore[arg-type]
    found = density_map(at((61, 91), *centres), BANK, config, stride=stride)
    assert found.count == pytest.approx(len(centres), rel=1e-5)
    assert (found.values >= 0).all()


@settings(deadline=None, max_examples=40)
@given(many, st.sampled_from(["corrected", "reference"]), st.integers(2, 9))
def test_a_map_at_a_stride_is_the_pooled_one(
    centres: list[tuple[int, int]], preset: str, stride: int
) -> None:
    some, config = at((61, 91), *centres), SigmaConfig("geometry")
    full = density_map(some, BANK, config, preset=preset)  # type: ignore[arg-type]
    found = density_map(some, BANK, config, preset=preset, stride=stride)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.values, pooled(full, stride).values, rtol=1e-5, atol=1e-9)


def test_the_order_of_objects_does_not_matter_beyond_rounding(rng: np.random.Generator) -> None:
    centres = [tuple(p) for p in rng.integers(0, 60, (20, 2)).tolist()]
    a = density_map(at((61, 61), *centres), BANK).values
    b = density_map(at((61, 61), *centres[::-1]), BANK).values
    np.testing.assert_allclose(a, b, rtol=1e-6)


# class sigmas


def test_class_sigmas_are_half_the_diagonal_of_the_mean_box() -> None:
    boxes = [[0, 0, 4, 9], [0, 0, 8, 7], [0, 0, 3, 4], [0, 0, 90, 90]]
    found = class_sigmas([Annotations.of("a", (99, 99), boxes, [1, 1, 10, 0])])
    assert found[0] == 5.0  # mean box 6 x 8
    assert found[9] == 2.5
    assert found[4] == pytest.approx(np.hypot(15, 20) / 3 / 2, abs=1e-3)
    SigmaConfig("classwise", class_sigmas=found)
    with pytest.raises(ConfigError, match="no object"):
        class_sigmas([at((9, 9))])


# real data


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fixed", "geometry"])
def test_golden_values(shared: Path, annotation_archive: Path, method: str) -> None:
    golden = json.loads((shared / "data/golden/visdrone-val-reference.json").read_text())
    assert len(golden) == 274
    prefix = {"fixed": "fixed15", "geometry": "geometry"}[method]
    folder = annotation_archive / "VisDrone2019-DET-val" / "annotations"
    for row in golden:
        size = row["height"], row["width"]
        some, _ = read_annotations(folder / f"{row['image']}.txt", row["image"], size)
        assert len(points(some)) == row["points"]
        config = SigmaConfig(method)  # type: ignore[arg-type]
        values = density_map(some, BANK, config, preset="reference").values.astype(np.float64)
        found = [values.sum(), values.max(), (values**2).sum()]
        expected = [row[f"{prefix}_{name}"] for name in ("sum", "max", "sum_of_squares")]
        assert found == pytest.approx(expected, rel=1e-6), row["image"]


@pytest.mark.slow
def test_corrected_maps_of_real_images_sum_to_the_objects(annotation_archive: Path) -> None:
    with (annotation_archive / "image_sizes.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"][::10]
    for row in rows:
        size = int(row["height"]), int(row["width"])
        path = annotation_archive / f"VisDrone2019-DET-val/annotations/{row['image']}.txt"
        some, _ = read_annotations(path, row["image"], size)
        for stride in (1, 4):
            found = density_map(some, BANK, SigmaConfig("geometry"), stride=stride)
            assert found.count == pytest.approx(len(some.objects), rel=1e-5)


@pytest.mark.slow
def test_class_sigmas_of_visdrone_are_the_authors_table(annotation_archive: Path) -> None:
    folder = annotation_archive / "VisDrone2019-DET-train" / "annotations"
    paths = sorted(folder.iterdir())[::4]
    found = class_sigmas(read_annotations(p, p.stem, (9999, 9999))[0] for p in paths)
    np.testing.assert_allclose(found, AUTHORS_SIGMAS, atol=2.5)
