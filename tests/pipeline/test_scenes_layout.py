"""Pictures for given boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.formats.visdrone import read_annotations, write_annotations
from dmnet.core.images import read_size
from dmnet.core.records import Annotations
from dmnet.pipeline.scenes import render_layout
from dmnet.pipeline.scenes.camera import Light
from dmnet.pipeline.scenes.guess import close_gaps, guess_camera, runs, street_direction
from dmnet.pipeline.scenes.layout import fit_pose
from dmnet.pipeline.scenes.objects import MAKERS
from dmnet.pipeline.scenes.plan import Plan

SIZE = (360, 640)


def _cars() -> Annotations:
    boxes = [[40 + 60 * i, 180 + 10 * (i % 2), 84 + 60 * i, 204 + 10 * (i % 2)] for i in range(9)]
    return Annotations.of("cars", SIZE, boxes, [4] * 9)


def test_empty_layout_is_a_picture_of_ground() -> None:
    image = render_layout(Annotations.of("none", SIZE, [], []), 0)
    assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
    assert image.std() > 5


def test_same_seed_same_bytes() -> None:
    one, two, other = (render_layout(_cars(), seed) for seed in (5, 5, 6))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_annotations_are_not_changed() -> None:
    annotations = _cars()
    before = write_annotations(annotations)
    render_layout(annotations, 0)
    assert write_annotations(annotations) == before


def test_every_category_and_odd_boxes() -> None:
    boxes = [[50 * k, 100, 50 * k + 40, 130] for k in range(12)]
    boxes += [[0, 0, 1, 1], [639, 359, 640, 360], [0, 0, 640, 360], [300, 0, 302, 90]]
    labels = [*range(12), 1, 4, 0, 1]
    annotations = replace(
        Annotations.of("odd", SIZE, boxes, labels), truncation=np.ones(16, dtype=np.int64)
    )
    assert render_layout(annotations, 0).shape == (*SIZE, 3)


@pytest.mark.parametrize("label", range(1, 11))
def test_solids_fill_their_boxes_exactly(label: int, rng: np.random.Generator) -> None:
    camera = guess_camera(_cars())
    plan, light = Plan(camera, rng, 0.3), Light.draw(rng)
    box = np.array([100.0, 120.0, 137.0, 149.0])
    faces, outline = fit_pose(plan, light, MAKERS[label](rng), box)
    corners = faces.corners.reshape(-1, 2)
    assert np.allclose([*corners.min(axis=0), *corners.max(axis=0)], box)
    assert outline.shape[1] == 2 and np.isfinite(outline).all()


def test_camera_from_sizes() -> None:
    """Cars twice as large at the bottom as at the top: an oblique camera; alike: a steep one."""
    rows = np.linspace(40, 340, 30)
    oblique = [[300 - s, y - s, 300, y] for y, s in zip(rows, np.linspace(20, 40, 30), strict=True)]
    steep = [[300.0, y - 30, 330, y] for y in rows]
    labels = [4] * 30
    low = guess_camera(Annotations.of("a", SIZE, oblique, labels))
    high = guess_camera(Annotations.of("b", SIZE, steep, labels))
    assert low.pitch < np.radians(65) < high.pitch
    middle = low.scale(low.to_ground(np.array([[320.0, 190.0]])))[0]
    assert middle == pytest.approx(30 / 2.9, rel=0.1)


def test_streets_follow_the_rows() -> None:
    along = np.stack([np.repeat([0.0, 18.0], 20), np.tile(np.arange(20) * 5.3, 2)], axis=1)
    turn = np.radians(30)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    assert np.degrees(street_direction(along @ matrix)) == pytest.approx(30, abs=4)


def test_gaps_and_runs() -> None:
    cells = np.array([[1, 0, 0, 1, 0, 0, 0, 1]], dtype=bool)
    assert close_gaps(cells, 2).astype(int).tolist() == [[1, 1, 1, 1, 0, 0, 0, 1]]
    assert runs(cells[0]) == [(0, 1), (3, 4), (7, 8)]


def test_real_layout(shared: Path) -> None:
    """A real annotation file with its real size gives a picture and keeps its rows."""
    root = shared / "data" / "visdrone-mini" / "VisDrone2019-DET-val"
    picture = sorted((root / "images").iterdir())[0]
    size, rows = read_size(picture), root / "annotations" / f"{picture.stem}.txt"
    annotations, _ = read_annotations(rows, picture.stem, size)
    before = write_annotations(annotations)
    assert render_layout(annotations, 0).shape == (*size, 3)
    assert write_annotations(annotations) == before
