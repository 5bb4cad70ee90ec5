"""Pictures and the report page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmnet.core.classes import VISDRONE
from dmnet.core.images import read_image
from dmnet.core.records import Annotations, Detections
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.error_types import error_costs
from dmnet.fusion.evaluation.evaluate import score
from dmnet.fusion.evaluation.matched import Matched, matched
from dmnet.fusion.evaluation.scored_images import scored_images
from dmnet.fusion.report import draw
from dmnet.fusion.report.draw import Layer, add_legend, draw_boxes, draw_layers, patch
from dmnet.fusion.report.gallery import commonest_confusions, outcomes, worst_images
from dmnet.fusion.report.page import Overlay, ReportConfig, RunFacts, render
from dmnet.fusion.report.plots import error_bars, precision_recall
from dmnet.fusion.report.tables import Result, number

GREY = np.full((80, 120, 3), 90, dtype=np.uint8)


def truth(name: str = "a") -> Annotations:
    boxes = [[10, 10, 30, 30], [50, 10, 70, 30], [90, 50, 110, 70]]
    return Annotations.of(name, (80, 120), boxes, [4, 5, 1])


def found() -> Detections:
    boxes = np.array([[10, 10, 30, 29], [50, 10, 70, 30], [5, 55, 15, 65.0]])
    return Detections(boxes, np.array([0.9, 0.8, 0.7]), np.array([4, 4, 9]))


def table() -> Matched:
    truths, results = [truth("a"), truth("b")], {"a": found(), "b": Detections.empty()}
    return matched(coco_images(scored_images(truths, results)), "coco@500", classes=VISDRONE.scored)


class TestDraw:
    def test_colours_of_classes_on_a_copy(self) -> None:
        picture = draw_boxes(GREY, found(), legend=False)
        assert picture.shape == GREY.shape
        assert tuple(picture[10, 20]) == draw.CLASS_COLOURS[4]
        assert tuple(picture[55, 10]) == draw.CLASS_COLOURS[9]
        assert tuple(picture[20, 20]) == (90, 90, 90)
        assert (GREY == 90).all()

    def test_half_open_boxes_end_inside(self) -> None:
        layer = Layer(np.array([[10, 10, 20, 20.0]]), (255, 0, 0))
        red = (draw_layers(GREY, [layer], legend=False) == (255, 0, 0)).all(axis=2)
        assert np.flatnonzero(red.any(axis=0)).tolist() == list(range(10, 20))

    def test_min_score_and_annotations(self) -> None:
        picture = draw_boxes(GREY, found(), min_score=0.85, legend=False)
        assert tuple(picture[55, 10]) == (90, 90, 90)
        assert tuple(draw_boxes(GREY, truth(), legend=False)[10, 60]) == draw.CLASS_COLOURS[5]

    def test_scores_are_written(self) -> None:
        plain, tagged = (draw_boxes(GREY, found(), scores=s, legend=False) for s in (False, True))
        assert (plain != tagged).any()

    def test_legend_below(self) -> None:
        picture = draw_boxes(GREY, found())
        assert picture.shape[0] > 80
        assert picture.shape[1:] == (120, 3)
        narrow = add_legend(GREY[:, :60], [Layer(np.zeros((0, 4)), (1, 2, 3), "a name")] * 4)
        assert narrow.shape[0] >= 80 + 4 * 22  # a line each

    def test_nothing_to_draw(self) -> None:
        assert np.array_equal(draw_boxes(GREY, Detections.empty()), GREY)

    def test_shrinks(self) -> None:
        picture = draw_boxes(GREY, found(), legend=False, longest=60)
        assert picture.shape == (40, 60, 3)
        assert tuple(picture[5, 10]) == draw.CLASS_COLOURS[4]

    def test_patch_beyond_the_border(self) -> None:
        focus = np.array([[0, 0, 10, 10.0]])
        cut = patch(GREY, focus, [Layer(focus, (255, 0, 0))], side=100, margin=1.0)
        assert cut.shape == (100, 100, 3)
        assert tuple(cut[2, 2]) == draw._BACKGROUND
        assert tuple(cut[90, 90]) == (90, 90, 90)
        outside = patch(GREY, focus + 500, [], side=50)
        assert outside.shape == (50, 50, 3)


class TestGallery:
    def test_outcomes(self) -> None:
        outcome = outcomes(table(), 0.5)
        counts = [len(part) for part in (outcome.tp, outcome.wrong, outcome.fp, outcome.fn)]
        assert counts == [1, 1, 1, 4]

    def test_worst_image_first(self) -> None:
        # a: one of another class, one FP, one FN; b: three FN
        assert worst_images(table(), 0.5) == [0, 1]
        assert worst_images(table(), 0.85) == [1, 0]  # now a's other two are FN alone

    def test_images_that_are_missing_are_passed_over(self) -> None:
        assert commonest_confusions(table(), 0.5, lambda name: None, 1)[0].pictures == []

    def test_commonest_confusions(self) -> None:
        tiles = commonest_confusions(table(), 0.5, lambda name: GREY, 9)
        titles = {tile.title: tile.text for tile in tiles}
        assert titles == {
            "pedestrian missed": "2 times",
            "car missed": "once",
            "van missed": "once",
            "van taken for car": "once",
            "background taken for bus": "once",
        }
        assert [len(tile.pictures) for tile in tiles] == [2, 1, 1, 1, 1]


class TestPlots:
    def test_same_bytes_every_time(self) -> None:
        first, second = (precision_recall({"one": table()}) for _ in range(2))
        assert first == second
        assert first.startswith("<svg")

    def test_errors(self) -> None:
        assert error_bars({"one": error_costs(table())}).startswith("<svg")

    def test_nothing_to_show(self) -> None:
        empty = matched([], "coco@500", classes=VISDRONE.scored)
        assert precision_recall({"one": empty}).startswith("<svg")
        assert error_bars({"one": error_costs(empty)}).startswith("<svg")


def results(names: tuple[str, ...], protocols: tuple[str, ...] = ("coco@500",)) -> list[Result]:
    truths, detections = [truth("a"), truth("b")], {"a": found()}
    return [
        Result(name, detections, [score(truths, detections, p, name=name) for p in protocols])
        for name in names
    ]


def drawn(
    truths: Sequence[Annotations],
    results: list[Result],
    title: str = "T",
    **settings: Any,
) -> str:
    return render(title, scored_images(truths, {}), results, classes=VISDRONE, **settings)


class TestReport:
    truths = (truth("a"), truth("b"))
    config = ReportConfig(bootstrap=5)

    def page(self, **settings: object) -> str:
        many = results(("whole", "fused"), ("coco@500", "visdrone"))
        return drawn(self.truths, many, config=self.config, **settings)

    def test_is_self_contained(self) -> None:
        html = self.page(image=lambda name: GREY)
        links = re.findall(r"""(?:src|href)=["']([^"']+)""", html)
        assert links
        assert all(link.startswith(("data:image/", "#")) for link in links)
        assert not re.search(r"https?:", re.sub(r"data:image/[^\"']+", "", html))
        assert html.count("data:image/jpeg") >= 2 + 4  # two in the viewer, examples of confusions

    def test_protocol_beside_every_table(self) -> None:
        html = self.page()
        for protocol in ("coco@500", "visdrone"):
            assert f'<span class="tag">{protocol}</span>' in html
        assert "whole" in html
        assert "fused" in html
        assert all(name in html for name in VISDRONE.names)

    def test_names_are_escaped_and_sections_are_not(self) -> None:
        html = drawn(
            self.truths,
            results(("<b>bold</b>",)),
            title="<script>alert(1)</script>",
            config=self.config,
            sections=[("Maps & more", "<p id='own'>text</p>")],
        )
        assert "<script>alert(1)" not in html
        assert "<b>bold</b>" not in html
        assert "<p id='own'>text</p>" in html
        assert "Maps &amp; more" in html

    def test_parts_can_be_left_out(self) -> None:
        html = drawn(
            self.truths,
            results(("one",)),
            image=lambda name: GREY,
            config=ReportConfig(bootstrap=0, pictures=0),
        )
        assert "Confidence intervals" not in html
        assert 'id="viewer"' not in html
        assert "About this run" not in html

    def test_viewer_opens_at_the_best_f1(self) -> None:
        html = self.page(
            image=lambda name: GREY,
            overlay=lambda name: Overlay([(0, 0, 60, 80)], b"png", 2.5),
        )
        data = json.loads(html.partition('id="viewer-data">')[2].partition("</script>")[0])
        # the best F1 takes two of the three: 1 TP, 1 FP, 5 FN, or one more FP
        assert (data["score"], data["embedded"]) == (0.9, True)
        assert data["layers"] == ["whole", "fused"]
        assert [image["id"] for image in data["images"]] == ["b", "a"]
        assert data["images"][0]["windows"] == [[0, 0, 60, 80]]
        assert data["images"][0]["count"] == 2.5
        assert "score at least 0.900 (best F1)" in html

    def test_only_images_that_can_be_read(self) -> None:
        html = self.page(image=lambda name: GREY if name == "b" else None)
        assert '"id":"b"' in html
        assert '"id":"a"' not in html
        assert 'id="viewer"' not in self.page(image=lambda name: None)

    def test_facts_of_the_run(self) -> None:
        run = RunFacts({"command": "make <x>"}, {"fuse-eval.merge.iou": "0.7"})
        html = self.page(run=run)
        assert "make &lt;x&gt;" in html
        assert "<code>fuse-eval.merge.iou</code>" in html
        assert "document.lastModified" in html

    def test_warnings_are_shown(self) -> None:
        perfect = {t.image_id: Detections(t.boxes, np.ones(3), t.labels) for t in self.truths}
        scores = [score(self.truths, perfect, "coco@500")]
        html = drawn(self.truths, [Result("r", perfect, scores)], config=self.config)
        assert "100% of AP50" in html

    def test_no_images_and_no_objects(self) -> None:
        empty = score([], {}, "coco@500")
        html = drawn([], [Result("r", {}, [empty])], config=self.config)
        assert "–" in html
        bare = Annotations.of("a", (80, 120), [], [])
        html = drawn([bare], [Result("r", {}, [score([bare], {}, "coco@500")])])
        assert "–" in html

    def test_same_bytes_every_time(self) -> None:
        assert self.page() == self.page()


def test_number() -> None:
    assert number(0.35594) == "35.59"
    assert number(36.634, "per cent") == "36.63"
    assert number(0.0004) == "0.04"
    assert number(float("nan")) == "–"


@pytest.mark.slow
def test_real_pictures(shared: Path) -> None:
    root = shared / "data" / "visdrone-mini" / "VisDrone2019-DET-val"
    path = min((root / "images").glob("*.jpg"))
    image = read_image(path)
    rows = np.loadtxt(root / "annotations" / f"{path.stem}.txt", delimiter=",", usecols=range(6))
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    picture = draw_boxes(
        image, Annotations.of("a", image.shape[:2], boxes, rows[:, 5]), longest=900
    )
    assert picture.shape[1] == 900


def test_ten_crowded_pictures_stay_below_three_megabytes(rng: np.random.Generator) -> None:
    """The worst pictures for JPEG there are, each with 300 objects and 500 boxes a layer."""
    size = (765, 1360)
    names = [f"{number:04d}" for number in range(10)]

    def boxes(count: int) -> np.ndarray:
        corner = rng.uniform(0, 700, (count, 2))
        return np.concatenate([corner, corner + rng.uniform(8, 60, (count, 2))], axis=1)

    truths = [
        Annotations.of(name, size, boxes(300), rng.integers(1, 11, 300).tolist()) for name in names
    ]
    results = [
        Result(layer, {n: Detections(boxes(500), rng.random(500), rng.integers(1, 11, 500))
                       for n in names}, [])
        for layer in ("whole image", "crops", "fused")
    ]  # fmt: skip
    noise = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    page = drawn(
        truths, results, image=lambda _: noise,
        config=ReportConfig(pictures=10, bootstrap=0),
    )  # fmt: skip
    assert page.count("data:image/jpeg") >= 10
    assert len(page.encode()) < 3_000_000
