"""COCO protocols: pycocotools as the oracle, golden values, empty sets."""

from __future__ import annotations

import contextlib
import io
import math
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.classes import VISDRONE
from dmnet.core.records import Annotations, Detections
from dmnet.fusion.evaluation import coco
from dmnet.fusion.evaluation.coco import AREAS, as_coco
from dmnet.fusion.evaluation.coco import count as count_of
from dmnet.fusion.evaluation.evaluate import evaluate, score
from dmnet.fusion.evaluation.scored_images import ScoredImage, scored_images
from dmnet.fusion.evaluation.scores import guard

count = partial(count_of, classes=VISDRONE.scored)


def crowded(rng: np.random.Generator, images: int, objects: int) -> list[ScoredImage]:
    """Many objects of few classes, crowds among them, more than 100 detections a class."""
    out = []
    for number in range(images):
        gt = np.zeros((objects, 6))
        gt[:, :2] = rng.integers(0, 300, (objects, 2))
        gt[:, 2:4] = np.round(np.exp(rng.uniform(1, 5, (objects, 2))))
        gt[:, 4] = rng.random(objects) > 0.1
        gt[:, 5] = rng.choice([1, 4, 9], objects, p=[0.1, 0.8, 0.1])
        dt = gt[rng.integers(0, objects, objects * 4)].copy()
        dt[:, :4] += rng.normal(0, 0.08, (len(dt), 4)) * dt[:, [2, 3, 2, 3]]
        dt[:, 2:4] = np.maximum(dt[:, 2:4], 0.5)
        dt[:, 4] = np.round(rng.random(len(dt)), 2)
        out.append(ScoredImage(gt, dt, (600, 600), f"{number:03d}"))
    return out


def oracle(images: list[ScoredImage], cap: int) -> tuple[np.ndarray, np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = as_coco(images, VISDRONE.scored)
    with contextlib.redirect_stdout(io.StringIO()):
        tables = []
        for rows in (truth["annotations"], found):
            api = COCO()
            api.dataset = {**truth, "annotations": rows}
            api.createIndex()
            tables.append(api)
        run = COCOeval(*tables, "bbox")
        run.params.maxDets = [1, 10, cap]
        run.params.catIds = list(VISDRONE.scored)
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][..., 2], run.eval["recall"]


@pytest.mark.parametrize("cap", [100, 500])
def test_agrees_with_pycocotools(rng: np.random.Generator, cap: int) -> None:
    images = crowded(rng, images=4, objects=150)
    assert max((image.found[:, 5] == 4).sum() for image in images) > 100
    tables = count(images, cap)
    precision, recall = oracle(images, cap)
    np.testing.assert_allclose(tables.precision, precision, atol=1e-12)
    np.testing.assert_allclose(tables.recall, recall, atol=1e-12)
    assert tables.ap() == pytest.approx(precision[..., 0][precision[..., 0] > -1].mean())


def test_the_cap_matters_and_is_named(rng: np.random.Generator) -> None:
    images = crowded(rng, images=2, objects=150)
    assert count(images, 500).ar() > count(images, 100).ar()
    with pytest.raises(ValueError, match="100"):
        count(images, 500).ar(100)


@pytest.mark.parametrize("cap", [3, 100, 500])
def test_many_images_in_parts_give_the_same_bits(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, cap: int
) -> None:
    """Equal scores across parts keep the order of the images; the cap is of each image."""
    images = crowded(rng, images=7, objects=60)
    images[3].found[:, 5] = 9  # a part without detections of the others
    scores = np.concatenate([image.found[:, 4] for image in images])
    assert len(np.unique(scores)) < len(scores) / 10
    whole = count(images, cap)
    monkeypatch.setattr(coco, "_PART", 2)
    parts = count(images, cap)
    assert np.array_equal(parts.precision, whole.precision)
    assert np.array_equal(parts.recall, whole.recall)
    assert (whole.recall[..., 2] > whole.recall[..., 0]).any()


def test_memory_of_one_class_at_a_time(rng: np.random.Generator) -> None:
    """The library holds some 700 bytes an object; ten classes are not held together."""
    images = crowded(rng, images=60, objects=40)
    for image in images:
        image.truth[:, 5] = np.arange(40) % 10 + 1
        image.found[:, 5] = np.arange(160) % 10 + 1
    count(images[:2], 100)  # imports
    tracemalloc.start()
    count(images, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / (60 * 200) < 300


@pytest.mark.slow
def test_golden_values(annotation_archive: Path, thirdparty_detections: Path) -> None:
    gt = annotation_archive / "VisDrone2019-DET-val" / "annotations"
    scores = evaluate(gt, thirdparty_detections, "coco@500")
    keys = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    expected = [0.3559, 0.5698, 0.3766, 0.2721, 0.4682, 0.5789]
    assert [scores.summary[key] for key in keys] == pytest.approx(expected, abs=5e-5)
    assert scores.counts == {"images": 548, "objects": 38759, "detections": 138939}
    assert scores.warnings == ()


def ann(*boxes: tuple[float, ...], labels: tuple[int, ...]) -> Annotations:
    return Annotations.of("a", (200, 200), boxes, labels)


class TestByHand:
    truth = ann((10, 10, 30, 30), (50, 50, 150, 150), labels=(4, 1))

    def scores(self, found: Detections, **settings: bool) -> dict[str, float]:
        return dict(score([self.truth], {"a": found}, "coco@500", **settings).summary)

    def test_perfect(self) -> None:
        found = Detections(self.truth.boxes, np.array([0.9, 0.8]), self.truth.labels)
        summary = self.scores(found)
        assert summary["AP"] == summary["AR500"] == summary["AP_small"] == 1
        assert summary["AP_large"] == 1
        assert math.isnan(summary["AP_medium"])

    def test_half_shifted_counts_at_low_thresholds_only(self) -> None:
        boxes = np.array([[10, 10, 30, 24.0], [50, 50, 150, 120.0]])  # IoU 0.7
        summary = self.scores(Detections(boxes, np.array([0.9, 0.8]), self.truth.labels))
        assert (summary["AP50"], summary["AP75"]) == (1, 0)
        assert summary["AP"] == pytest.approx(0.5)  # 0.50 to 0.70

    def test_nothing_found(self) -> None:
        summary = self.scores(Detections.empty())
        assert (summary["AP"], summary["AR500"]) == (0, 0)

    def test_nothing_to_find(self) -> None:
        scores = score([ann(labels=())], {}, "coco@100")
        assert math.isnan(scores.summary["AP"])
        assert scores.to_json()["AP"] is None

    def test_no_images(self) -> None:
        assert math.isnan(score([], {}, "coco@100").summary["AP"])

    def test_ignored_regions_are_a_switch(self) -> None:
        truth = ann((10, 10, 30, 30), (100, 100, 200, 200), labels=(4, 0))
        found = Detections(
            np.array([[120, 120, 140, 140], [10, 10, 30, 30.0]]), np.array([0.9, 0.8]), [4, 4]
        )
        plain = score([truth], {"a": found}, "coco@500")
        switched = score([truth], {"a": found}, "coco@500", ignore_regions=True)
        assert plain.summary["AP50"] == 0.5
        assert switched.summary["AP50"] == 1
        assert (plain.ignore_regions, switched.ignore_regions) == (False, True)


def test_area_names_are_the_protocols() -> None:
    assert AREAS == ("all", "small", "medium", "large")


def test_ap_close_to_ap50_is_flagged(rng: np.random.Generator) -> None:
    """A matcher that forgets the threshold gives the same precision at every one."""
    assert guard({"AP": 0.3559, "AP50": 0.5698}) == ()
    assert "97% of AP50" in guard({"AP": 0.55, "AP50": 0.5698})[0]
    images = crowded(rng, images=2, objects=60)
    broken = count(images, 500).precision.copy()
    broken[:] = broken[:1]
    valid = broken[broken > -1]
    assert guard({"AP": float(valid.mean()), "AP50": float(valid.mean())})
    truths = [image.annotations(VISDRONE) for image in images]
    results = {image.image_id: image.detections() for image in images}
    assert score(truths, results, "coco@500").warnings == ()


def test_order_of_rows_and_images_does_not_matter(rng: np.random.Generator) -> None:
    images = crowded(rng, images=3, objects=40)
    for image in images:
        image.found[:, 4] = rng.random(len(image.found))
    first = count(images, 500)
    shuffled = [
        ScoredImage(rng.permutation(s.truth), rng.permutation(s.found), s.size, s.image_id)
        for s in images[::-1]
    ]
    np.testing.assert_allclose(count(shuffled, 500).precision, first.precision, atol=1e-12)


def test_records_and_rows_agree(rng: np.random.Generator) -> None:
    images = crowded(rng, images=2, objects=30)
    for image in images:
        image.found[:, :4] = np.round(image.found[:, :4], 3)
    truths = [image.annotations(VISDRONE) for image in images]
    results = {image.image_id: image.detections() for image in images}
    for before, after in zip(images, scored_images(truths, results), strict=True):
        assert np.array_equal(before.truth, after.truth)
        assert np.array_equal(before.found, after.found)
