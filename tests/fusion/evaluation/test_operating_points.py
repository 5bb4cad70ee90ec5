"""Operating points, confusion, error types, intervals: by hand, and against the protocols."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from dmnet.core.classes import VISDRONE
from dmnet.core.errors import ConfigError
from dmnet.fusion.evaluation import coco, visdrone
from dmnet.fusion.evaluation.bootstrap import compare, draws, intervals, resample
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.error_types import TYPES, error_costs, error_kinds
from dmnet.fusion.evaluation.matched import Matched, ap_table, curve, set_ap
from dmnet.fusion.evaluation.matched import matched as matched_of
from dmnet.fusion.evaluation.matching import IGNORED, NONE, Rows, match
from dmnet.fusion.evaluation.operating_points import (
    best_f1,
    confusion,
    operating_point,
    operating_point_of,
)
from dmnet.fusion.evaluation.scored_images import ScoredImage

matched = partial(matched_of, classes=VISDRONE.scored)


def rows(*values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, dtype=np.float64).reshape(-1, 6)


def table_of(truth: np.ndarray, found: np.ndarray, protocol: str = "coco@500") -> Matched:
    return matched([ScoredImage(truth, found, (500, 500), "a")], protocol)


def crowded(rng: np.random.Generator, images: int = 5, noise: float = 0.1) -> list[ScoredImage]:
    out = []
    for number in range(images):
        count = int(rng.integers(0, 60))
        gt = np.zeros((count, 6))
        gt[:, :2] = rng.integers(0, 300, (count, 2))
        gt[:, 2:4] = rng.integers(5, 60, (count, 2))
        gt[:, 5] = rng.choice([0, 1, 4, 9, 11], count, p=[0.05, 0.3, 0.4, 0.2, 0.05])
        gt[:, 4] = (rng.random(count) > 0.1) & ~np.isin(gt[:, 5], [0, 11])
        dt = gt[rng.integers(0, count, count * 3)].copy() if count else gt
        dt[:, :4] += rng.normal(0, noise, (len(dt), 4)) * dt[:, [2, 3, 2, 3]]
        dt[:, 2:4] = np.maximum(dt[:, 2:4], 0.5)
        dt[:, 4] = np.round(rng.random(len(dt)), 2)
        swap = rng.random(len(dt)) < 0.2
        dt[:, 5] = np.where(swap, 4, dt[:, 5])
        out.append(ScoredImage(gt, dt, (360, 360), str(number)))
    return out


class TestMatch:
    box = np.array([[0, 0, 10, 10.0]])

    def run(self, found: list, scores: list, truth: list, ignore: list) -> list:
        groups = [np.zeros(len(part), dtype=np.int64) for part in (found, truth)]
        boxes = [np.array(part, dtype=float).reshape(-1, 4) for part in (found, truth)]
        result = match(
            Rows(groups[0], boxes[0]),
            np.array(scores, dtype=float),
            Rows(groups[1], boxes[1]),
            np.array(ignore, dtype=bool),
            np.array([0.5, 0.75]),
        )
        return result.tolist()

    def test_best_score_first(self) -> None:
        found = [[0, 0, 10, 9], [0, 0, 10, 10]]
        assert self.run(found, [0.5, 0.9], [[0, 0, 10, 10]], [False]) == [[NONE, NONE], [0, 0]]

    def test_later_truth_on_equal_overlap(self) -> None:
        same = [[0, 0, 10, 10], [0, 0, 10, 10]]
        assert self.run([[0, 0, 10, 10]], [0.9], same, [False, False]) == [[1, 1]]

    def test_threshold_itself_matches(self) -> None:
        assert self.run([[0, 0, 10, 5]], [0.9], [[0, 0, 10, 10]], [False]) == [[0, NONE]]

    def test_ignored_only_if_nothing_else(self) -> None:
        truth = [[0, 0, 100, 100], [0, 0, 10, 6]]
        assert self.run([[0, 0, 10, 10]], [0.9], truth, [True, False]) == [[1, IGNORED]]

    def test_empty(self) -> None:
        assert self.run([], [], [], []) == []
        assert self.run([[0, 0, 1, 1]], [1], [], []) == [[NONE, NONE]]


@pytest.mark.parametrize("cap", [7, 500])
def test_agrees_with_the_coco_protocol(rng: np.random.Generator, cap: int) -> None:
    images = coco_images(crowded(rng), crowd=True)
    tables = coco.count(images, cap, classes=VISDRONE.scored)
    ap = ap_table(matched(images, f"coco@{cap}"))
    for position, label in enumerate(VISDRONE.scored):
        for column, iou in enumerate(coco.IOUS):
            expected = tables.ap(iou, label=label)
            assert ap[position, column] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("protocol", ["visdrone", "visdrone-macro"])
def test_agrees_with_the_visdrone_protocol(rng: np.random.Generator, protocol: str) -> None:
    images = crowded(rng)
    tables = visdrone.count(images, VISDRONE.scored)
    ap = set_ap(matched(images, protocol)) * 100
    macro = protocol == "visdrone-macro"
    assert ap.mean() == pytest.approx(tables.ap(macro=macro))
    assert ap[0] == pytest.approx(tables.ap(0.5, macro=macro))


def test_weights_repeat_images(rng: np.random.Generator) -> None:
    images = crowded(rng, images=3)
    for image in images:
        image.found[:, 4] = rng.random(len(image.found))  # no ties
    for protocol in ("coco@500", "visdrone"):
        once = matched(images, protocol)
        twice = matched([images[0], images[0], images[2]], protocol)
        weighted = set_ap(once, np.array([2.0, 0.0, 1.0]))
        np.testing.assert_allclose(weighted, set_ap(twice), atol=1e-9)


@pytest.mark.parametrize("protocol", ["coco@500", "visdrone"])
def test_ground_truth_of_another_table_is_held_once(
    rng: np.random.Generator, protocol: str
) -> None:
    images = crowded(rng, images=4)
    other = [replace(image, found=image.found[::2]) for image in images]
    first, alone = matched(images, protocol), matched(other, protocol)
    table = matched(other, protocol, like=first)
    assert table.truth_xywh is first.truth_xywh
    for name in ("image", "label", "score", "xywh", "chosen", "truth_image", "truth_xywh"):
        np.testing.assert_array_equal(getattr(table, name), getattr(alone, name))


class TestOperatingPoint:
    truth = rows((0, 0, 10, 10, 1, 4), (50, 0, 10, 10, 1, 4), (90, 0, 10, 10, 1, 1))
    found = rows(
        (0, 0, 10, 10, 0.9, 4), (200, 0, 10, 10, 0.8, 4), (50, 0, 10, 8, 0.7, 4),
        (300, 0, 9, 9, 0.1, 1),
    )  # fmt: skip

    def test_by_hand(self) -> None:
        point = operating_point(table_of(self.truth, self.found), 0.5)
        assert (point.tp, point.fp, point.fn) == (2, 1, 1)
        assert point.precision == point.recall == point.f1 == pytest.approx(2 / 3)
        assert point.mean_iou == pytest.approx(0.9)

    def test_records(self) -> None:
        image = ScoredImage(self.truth, self.found, (500, 500), "a")
        point = operating_point_of([image.annotations(VISDRONE)], {"a": image.detections()}, 0.5)
        assert point == operating_point(table_of(self.truth, self.found), 0.5)
        assert operating_point_of([image.annotations(VISDRONE)], {}, 0.5).fn == 3

    def test_no_detections(self) -> None:
        point = operating_point(table_of(self.truth, rows()), 0.5)
        assert (point.tp, point.fp, point.fn) == (0, 0, 3)
        assert math.isnan(point.precision)
        assert (point.recall, point.f1) == (0, 0)

    def test_best_f1(self) -> None:
        table = table_of(self.truth, self.found)
        point = best_f1(table)
        assert (point.threshold, point.f1) == (0.7, pytest.approx(2 / 3))
        scores = np.unique(table.score)
        assert point.f1 == max(operating_point(table, score).f1 for score in scores)

    def test_equal_scores_come_together(self, rng: np.random.Generator) -> None:
        table = matched(coco_images(crowded(rng)), "coco@500")
        every = [operating_point(table, score).f1 for score in np.unique(table.score)]
        assert best_f1(table).f1 == pytest.approx(max(every))

    def test_nothing(self) -> None:
        point = best_f1(table_of(rows(), rows()))
        assert (point.tp, point.fn) == (0, 0)
        assert math.isnan(point.f1)

    def test_unknown_iou(self) -> None:
        with pytest.raises(ValueError, match=r"not at IoU 0\.5"):
            operating_point(matched([], "coco@500", thresholds=np.array([0.6])), 0.5)


def test_confusion_by_hand() -> None:
    truth = rows((0, 0, 10, 10, 1, 4), (50, 0, 10, 10, 1, 5), (90, 0, 10, 10, 1, 1))
    found = rows(
        (0, 0, 10, 10, 0.9, 4), (50, 0, 10, 9, 0.8, 4), (200, 0, 10, 10, 0.7, 4),
        (90, 0, 10, 10, 0.2, 1),
    )  # fmt: skip
    matrix = confusion(table_of(truth, found), 0.5)
    expected = np.zeros((11, 11), dtype=int)
    expected[3, 3] = 1  # car as car
    expected[4, 3] = 1  # van as car
    expected[10, 3] = 1  # background as car
    expected[0, 10] = 1  # pedestrian missed
    assert matrix.tolist() == expected.tolist()


def test_confusion_keeps_the_match_of_the_own_class() -> None:
    truth = rows((0, 0, 10, 10, 1, 4), (0, 0, 10, 9, 1, 5))
    found = rows((0, 0, 10, 10, 0.9, 5), (0, 0, 10, 10, 0.8, 4))
    assert np.trace(confusion(table_of(truth, found), 0.5)) == 2


class TestErrors:
    truth = rows(
        (0, 0, 10, 10, 1, 4), (50, 0, 10, 10, 1, 4), (100, 0, 10, 10, 1, 5),
        (150, 0, 10, 10, 1, 1), (200, 0, 10, 10, 1, 4),
    )  # fmt: skip
    found = rows(
        (0, 0, 10, 10, 0.99, 4),  # hit
        (0, 0, 10, 9, 0.98, 4),  # duplicate
        (50, 0, 10, 4, 0.97, 4),  # localisation
        (100, 0, 10, 10, 0.96, 4),  # class
        (150, 0, 10, 3, 0.95, 4),  # both
        (400, 0, 10, 10, 0.94, 4),  # background
    )

    def test_kinds_by_hand(self) -> None:
        kind, about = error_kinds(table_of(self.truth, self.found))
        names = [TYPES[value] if value >= 0 else "hit" for value in kind]
        assert names == ["hit", "duplicate", "localisation", "class", "both", "background"]
        assert about.tolist() == [-1, -1, 1, 2, -1, -1]

    def test_costs_by_hand(self) -> None:
        costs = {cost.kind: cost for cost in error_costs(table_of(self.truth, self.found))}
        assert [costs[kind].number for kind in TYPES] == [1, 1, 1, 1, 1, 2]
        # cars: 3, one found first: 34 of 101 recall steps at precision 1; van and person: 0
        before = 34 / 101 / 3
        table = table_of(self.truth, self.found)
        assert set_ap(table)[0] == pytest.approx(before)
        # mended place: TP at rank 1 and 3, so steps 35 to 67 at precision 2/3
        place = (34 + 33 * 2 / 3) / 101 / 3
        assert costs["localisation"].cost == pytest.approx(place - before)
        # mended class: the van is found (1), and the car's FP is gone
        assert costs["class"].cost == pytest.approx(1 / 3)
        # missed: one car less (1 of 2 found: 51 steps); the person no longer counts as a class
        assert costs["missed"].cost == pytest.approx(51 / 101 / 2 - before)

    def test_perfect_has_no_errors(self) -> None:
        found = self.truth.copy()
        found[:, 4] = 0.9
        assert all(cost.number == cost.cost == 0 for cost in error_costs(table_of(found, found)))

    def test_mending_never_hurts(self, rng: np.random.Generator) -> None:
        table = matched(coco_images(crowded(rng)), "coco@500")
        costs = error_costs(table)
        assert all(cost.cost >= -1e-9 for cost in costs if cost.kind != "missed")
        false = int((table.chosen[:, 0] == NONE).sum())
        assert sum(cost.number for cost in costs[:5]) == false

    def test_needs_iou_half(self) -> None:
        table = matched([], "coco@500", thresholds=np.array([0.75]))
        with pytest.raises(ValueError, match=r"IoU 0\.5"):
            error_costs(table)


class TestBootstrap:
    def test_interval_holds_the_value(self, rng: np.random.Generator) -> None:
        table = matched(coco_images(crowded(rng, images=30)), "coco@500")
        drawn = resample(table, repeats=40)
        result = intervals(table, drawn)
        assert list(result) == ["AP", "AP50", "AP75"]
        for interval in result.values():
            assert interval.low < interval.value < interval.high
        assert result == intervals(table, resample(table, repeats=40))
        ends = [result["AP"].low, result["AP"].high]
        assert ends == pytest.approx(np.quantile(drawn[:, 0], [0.025, 0.975]).tolist())

    def test_one_image_has_no_spread(self, rng: np.random.Generator) -> None:
        table = matched([coco_images(crowded(rng, images=9))[-1]], "coco@500")
        result = intervals(table, resample(table, repeats=5))["AP"]
        assert result.low == pytest.approx(result.value) == result.high

    def test_no_images(self) -> None:
        table = matched([], "coco@500")
        assert math.isnan(intervals(table, resample(table, repeats=3))["AP"].low)

    def test_every_draw_has_the_size_of_the_set(self) -> None:
        assert draws(7, 5).sum(axis=1).tolist() == [7] * 5

    def test_compare(self, rng: np.random.Generator) -> None:
        first = coco_images(crowded(rng, images=20))
        shift = np.array([3, 3, 3, 3, 0, 0])
        worse = [
            replace(image, found=image.found + rng.normal(0, 1, image.found.shape) * shift)
            for image in first
        ]
        tables = [matched(images, "coco@500") for images in (first, worse)]
        drawn = [resample(table, repeats=60) for table in tables]
        result = compare(tables[0], tables[1], (drawn[0], drawn[1]))["AP"]
        assert result.difference.high < 0
        assert result.p_value < 0.05
        same = compare(tables[0], tables[0], (drawn[0], drawn[0]))["AP"]
        assert same.difference.value == same.difference.low == same.difference.high == 0
        assert same.p_value == 1

    def test_compare_other_images(self, rng: np.random.Generator) -> None:
        images = crowded(rng, images=3)
        tables = [matched(images, "coco@500"), matched(images[:2], "coco@500")]
        drawn = [resample(table, repeats=2) for table in tables]
        with pytest.raises(ConfigError, match="same images and protocol"):
            compare(tables[0], tables[1], (drawn[0], drawn[1]))


def test_curve() -> None:
    recall, precision = curve(table_of(TestOperatingPoint.truth, TestOperatingPoint.found), 4)
    assert recall.tolist() == [0.5, 0.5, 1]
    assert precision.tolist() == pytest.approx([1, 0.5, 2 / 3])
