"""The official protocol: golden values, and a slow literal reading of it as the oracle."""

from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.classes import VISDRONE
from dmnet.fusion.evaluation.scored_images import ScoredImage
from dmnet.fusion.evaluation.visdrone import (
    CAPS,
    IOUS,
    VisDroneTables,
    half_away,
    ignored_share,
)
from dmnet.fusion.evaluation.visdrone import count as count_of

count = partial(count_of, classes=VISDRONE.scored)

# --- the literal reading -------------------------------------------------------------------------


def matlab_round(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def literal_filter(gt: np.ndarray, rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    mask = np.zeros((height + 1, width + 1))  # row 0 and column 0 are not used: 1-based
    for left, top, w, h in gt[gt[:, 5] == 0, :4]:
        x, y, w, h = (max(1, matlab_round(v)) for v in (left, top, w, h))
        mask[y : min(height, y + h) + 1, x : min(width, x + w) + 1] = 1
    integral = mask.cumsum(axis=0).cumsum(axis=1)
    keep = []
    for index, row in enumerate(rows):
        left, top, w, h = (max(1, matlab_round(v)) for v in row[:4])
        x, y = max(1, min(width, left)), max(1, min(height, top))
        x2, y2 = max(1, min(width, x + w)), max(1, min(height, y + h))
        total = integral[y, x] + integral[y2, x2] - integral[y, x2] - integral[y2, x]
        if total / (h * w) < 0.5:
            keep.append(index)
    return rows[keep]


def literal_match(gt: np.ndarray, dt: np.ndarray, threshold: float) -> tuple[list, list]:
    """Scores with outcome of the detections, and the number of ground-truth rows."""
    dt = dt[np.argsort(-dt[:, 4], kind="stable")]
    gt = gt[np.argsort(gt[:, 4] == 0, kind="stable")]
    taken = [False] * len(gt)
    out = []
    for d in dt:
        best, chosen, kind = threshold, -1, 0
        for g, row in enumerate(gt):
            ignored = row[4] == 0
            if taken[g]:
                continue
            if kind != 0 and ignored:
                break
            w = min(d[0] + d[2], row[0] + row[2]) - max(d[0], row[0])
            h = min(d[1] + d[3], row[1] + row[3]) - max(d[1], row[1])
            if w <= 0 or h <= 0:
                continue
            union = d[2] * d[3] if ignored else d[2] * d[3] + row[2] * row[3] - w * h
            if w * h / union < best:
                continue
            best, chosen, kind = w * h / union, g, -1 if ignored else 1
        if kind == 1:
            taken[chosen] = True
        out.append((d[4], kind))
    return out, [None] * len(gt)


def literal_count(images: list[ScoredImage]) -> VisDroneTables:
    kept = []
    for image in images:
        gt = image.truth
        objects = gt[gt[:, 5] != 0]
        kept.append(
            (literal_filter(gt, objects, image.size), literal_filter(gt, image.found, image.size))
        )
    precision, recall = np.zeros((10, 10)), np.zeros((10, 10, 4))
    number = np.zeros(10, dtype=np.int64)
    for c, label in enumerate(VISDRONE.scored):
        number[c] = sum(bool((gt[:, 5] == label).any()) for gt, _ in kept)
        for t, threshold in enumerate(0.5 + 0.05 * k for k in range(10)):
            for m, cap in enumerate(CAPS):
                results, truths = [], []
                for gt, dt in kept:
                    dt = dt[:cap]
                    found, there = literal_match(
                        gt[gt[:, 5] == label], dt[dt[:, 5] == label], threshold
                    )
                    results += found
                    truths += there
                results.sort(key=lambda pair: -pair[0])
                tp = np.cumsum([kind == 1 for _, kind in results])
                fp = np.cumsum([kind == 0 for _, kind in results])
                rec = tp / max(1, len(truths))
                if len(rec):
                    recall[c, t, m] = rec.max() * 100
            if len(rec):
                mrec = np.concatenate([[0], rec, [1]])
                mpre = np.concatenate([[0], tp / np.maximum(1, tp + fp), [0]])
                for i in range(len(mpre) - 2, -1, -1):
                    mpre[i] = max(mpre[i], mpre[i + 1])
                i = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
                precision[c, t] = ((mrec[i] - mrec[i - 1]) * mpre[i]).sum() * 100
    return VisDroneTables(tuple(VISDRONE.scored), precision, recall, number)


# --- generated files -----------------------------------------------------------------------------


def scene(rng: np.random.Generator, objects: int, fractional: bool) -> ScoredImage:
    """A crowded image: regions, ignored rows, others, duplicates, unsorted detections."""
    size = (int(rng.integers(150, 260)), int(rng.integers(150, 300)))
    gt = np.zeros((objects, 6))
    gt[:, :2] = rng.integers(0, 200, (objects, 2))
    gt[:, 2:4] = rng.integers(1, 45, (objects, 2))
    gt[:, 5] = rng.choice([0, 1, 2, 4, 4, 4, 11], objects)
    gt[:, 4] = (rng.random(objects) > 0.15) & ~np.isin(gt[:, 5], [0, 11])
    copies = gt[rng.integers(0, objects, 5 * objects)] if objects else gt
    dt = copies.copy()
    dt[:, :4] += rng.normal(0, 2, dt[:, :4].shape)
    dt[:, :4] = np.round(dt[:, :4], 1 if fractional else 0)
    dt[:, 2:4] = np.maximum(dt[:, 2:4], 1)
    dt[:, 4] = np.round(rng.random(len(dt)), 2)  # ties
    dt[:, 5] = np.where(rng.random(len(dt)) < 0.1, 3, np.maximum(dt[:, 5], 1))
    return ScoredImage(gt, dt, size)


def permuted(image: ScoredImage, rng: np.random.Generator) -> ScoredImage:
    return ScoredImage(rng.permutation(image.truth), rng.permutation(image.found), image.size)


def assert_same(a: VisDroneTables, b: VisDroneTables) -> None:
    np.testing.assert_allclose(a.precision, b.precision, atol=1e-9)
    np.testing.assert_allclose(a.recall, b.recall, atol=1e-9)
    assert a.images.tolist() == b.images.tolist()


@pytest.mark.parametrize("fractional", [False, True])
def test_agrees_with_the_literal_reading(rng: np.random.Generator, fractional: bool) -> None:
    images = [scene(rng, objects, fractional) for objects in (0, 1, 12, 30, 140)]
    assert len(images[-1].found) > 500
    images.append(ScoredImage(np.zeros((0, 6)), images[2].found, (200, 200)))  # no ground truth
    images.append(ScoredImage(images[3].truth, np.zeros((0, 6)), images[3].size))  # no detections
    images.append(ScoredImage(np.zeros((0, 6)), np.zeros((0, 6)), (200, 200)))
    assert_same(count(images), literal_count(images))


def real(archive: Path, detections: Path, every: int = 1) -> list[ScoredImage]:
    with (archive / "image_sizes.csv").open() as file:
        sizes = {
            row["image"]: (int(row["height"]), int(row["width"]))
            for row in csv.DictReader(file)
            if row["split"] == "val"
        }
    files = sorted((archive / "VisDrone2019-DET-val" / "annotations").glob("*.txt"))
    return [
        ScoredImage(
            np.loadtxt(path, delimiter=",", usecols=range(6), ndmin=2),
            np.loadtxt(detections / path.name, usecols=range(6), ndmin=2),
            sizes[path.stem],
        )
        for path in files[::every]
    ]


def summary(tables: VisDroneTables, macro: bool = False) -> list[float]:
    ap = [tables.ap(iou, macro=macro) for iou in (None, 0.5, 0.75)]
    return ap + [tables.ar(cap, macro=macro) for cap in CAPS]


GOLDEN = """
weighted 36.6346752564 60.8278060398 37.6558534750 2.9899042565 12.3929343808 44.4589211241 50.3876886087
macro    36.4543683946 58.8315697467 38.4498466625 5.1561716728 16.1369796314 44.9080744274 51.1172276102
subset   36.2524683874 60.1998457821 36.9865168925 3.1026240314 12.1304182413 43.1321809577 49.7813004273
classes  34.7606 24.5047 21.3595 64.8796 45.4417 37.6591 26.8370 17.6088 57.8005 33.6920
"""  # noqa: E501


def golden(name: str) -> list[float]:
    row = next(line for line in GOLDEN.splitlines() if line.startswith(name))
    return [float(value) for value in row.split()[1:]]


@pytest.mark.slow
def test_golden_values(annotation_archive: Path, thirdparty_detections: Path) -> None:
    tables = count(real(annotation_archive, thirdparty_detections))
    assert summary(tables) == pytest.approx(golden("weighted"), abs=1e-7)
    assert summary(tables, macro=True) == pytest.approx(golden("macro"), abs=1e-7)
    assert [tables.ap(label=c) for c in VISDRONE.scored] == pytest.approx(
        golden("classes"), abs=5e-5
    )


def test_golden_subset(annotation_archive: Path, thirdparty_detections: Path) -> None:
    tables = count(real(annotation_archive, thirdparty_detections, every=14))
    assert summary(tables) == pytest.approx(golden("subset"), abs=1e-7)


def test_perturbed_real_files(
    annotation_archive: Path, thirdparty_detections: Path, rng: np.random.Generator
) -> None:
    images = []
    for image in real(annotation_archive, thirdparty_detections, every=110):
        truth = image.truth.copy()
        truth[rng.random(len(truth)) < 0.1, 4] = 0
        shift = np.array([0.37, -0.5, 0.25, 1, 0, 0])
        found = np.concatenate([image.found, image.found + shift])
        images.append(permuted(ScoredImage(truth, found, image.size), rng))
    assert max(len(image.found) for image in images) > 500
    assert_same(count(images), literal_count(images))


# --- by hand -------------------------------------------------------------------------------------


def rows(*values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, dtype=np.float64).reshape(-1, 6)


def test_perfect_detections_score_one_hundred() -> None:
    truth = rows((10, 10, 20, 20, 1, 4), (50, 50, 10, 10, 1, 1))
    tables = count([ScoredImage(truth, truth, None)])
    assert tables.ap() == tables.ap(0.5) == tables.ar() == 100
    assert tables.ar(1) == 50  # one row per image over all classes
    assert math.isnan(tables.ap(label=2))


def test_class_mean_is_weighted_by_images() -> None:
    car, person = (10, 10, 20, 20, 1, 4), (50, 50, 10, 10, 1, 1)
    both = ScoredImage(rows(car, person), rows(car), None)
    car_only = ScoredImage(rows(car), rows(car), None)
    tables = count([both, car_only, car_only])
    assert tables.ap() == pytest.approx(75)
    assert tables.ap(macro=True) == pytest.approx(50)


def test_the_cap_follows_file_order() -> None:
    tp, fp = (10, 10, 20, 20, 0.9, 4), (100, 100, 20, 20, 0.1, 4)
    tables = count([ScoredImage(rows((10, 10, 20, 20, 1, 4)), rows(fp, tp), None)])
    assert tables.ar(1) == 0
    assert tables.ap() == tables.ar(10) == 100


def test_ignored_ground_truth_counts_neither_way() -> None:
    truth = rows((10, 10, 20, 20, 1, 4), (60, 60, 40, 40, 0, 4))
    found = rows((65, 65, 5, 5, 0.9, 4), (70, 70, 5, 5, 0.8, 4), (10, 10, 20, 20, 0.7, 4))
    tables = count([ScoredImage(truth, found, None)])
    assert tables.ap(0.5, label=4) == 50  # precision 1; the ignored row stays in the recall base


def test_others_are_never_scored_but_fill_the_cap() -> None:
    other, car = (10, 10, 20, 20, 0.9, 11), (10, 10, 20, 20, 0.8, 4)
    tables = count([ScoredImage(rows((10, 10, 20, 20, 1, 4)), rows(other, car), None)])
    assert (tables.ar(1), tables.ar(10)) == (0, 100)


def test_nothing_at_all() -> None:
    assert math.isnan(count([]).ap())
    empty = count([ScoredImage(rows((1, 1, 5, 5, 1, 4)), rows(), None)])
    assert (empty.ap(), empty.ar()) == (0, 0)


def test_ignored_regions_need_the_size() -> None:
    with pytest.raises(ValueError, match="size is needed"):
        count([ScoredImage(rows((1, 1, 50, 50, 0, 0)), rows(), None)])


def test_half_of_the_box_in_a_region_removes_it() -> None:
    region = np.array([[11.0, 1.0, 100.0, 100.0]])  # columns 11 to 111, 1-based inclusive
    boxes = np.array([[5.0, 5.0, 10.0, 10.0], [6.0, 5.0, 10.0, 10.0], [0.0, 5.0, 10.0, 10.0]])
    # read columns x+1 .. x+w: 6..15 holds 5 of 10; 7..16 holds 6; left 0 becomes 1: 2..11 holds 1
    assert ignored_share(boxes, region, (200, 200)).tolist() == [0.5, 0.6, 0.1]


def test_half_away_from_zero() -> None:
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49999999999999994, 2.4])
    assert half_away(values).tolist() == [1, 2, 3, -1, -2, 0, 2]


def test_thresholds_are_the_toolkits() -> None:
    assert IOUS.tolist() == [0.5 + 0.05 * k for k in range(10)]
    assert IOUS[7] > 0.85


def test_order_of_rows_and_images_does_not_matter(rng: np.random.Generator) -> None:
    images = [scene(rng, objects, True) for objects in (10, 20, 30)]  # at most 150 rows: no cut
    for image in images:
        image.found[:, 4] = rng.random(len(image.found))  # no ties
    first = count(images)
    again = count([permuted(image, rng) for image in images[::-1]])
    np.testing.assert_allclose(first.precision, again.precision, atol=1e-9)
    np.testing.assert_allclose(first.recall[..., 3], again.recall[..., 3], atol=1e-9)
