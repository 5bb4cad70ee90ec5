"""Scenes: the same seed, the same bytes; boxes, labels and sizes as VisDrone has them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dmnet.core.boxes import area
from dmnet.core.formats.visdrone import read_annotations
from dmnet.core.images import read_image
from dmnet.core.records import Annotations, Image
from dmnet.pipeline.scenes import SceneConfig, make_item, make_scene, write_item
from dmnet.pipeline.scenes.camera import Camera, Light
from dmnet.pipeline.scenes.canvas import Canvas, seen
from dmnet.pipeline.scenes.render import look
from dmnet.pipeline.scenes.vehicles import car

SMALL = SceneConfig(width=(640, 640), max_objects=120)


@cache
def full(seed: int) -> tuple[Image, Annotations]:
    return make_scene(seed)


def test_same_seed_same_bytes() -> None:
    one, first = make_scene(3, SMALL)
    two, second = make_scene(3, SMALL)
    assert one.tobytes() == two.tobytes()
    for name in ("boxes", "labels", "score", "truncation", "occlusion"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_scene_and_config_seed_both_count() -> None:
    base = make_scene(3, SMALL)[0]
    other = SceneConfig(seed=1, width=(640, 640), max_objects=120)
    assert not np.array_equal(base, make_scene(4, SMALL)[0])
    assert not np.array_equal(base, make_scene(3, other)[0])


@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_whole_pixels_inside_and_columns_valid(seed: int) -> None:
    image, annotations = full(seed)
    height, width = annotations.size
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    boxes = annotations.boxes
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes == np.round(boxes)).all()
    assert set(annotations.labels.tolist()) <= set(range(12))
    assert set(annotations.truncation.tolist()) <= {0, 1}
    assert set(annotations.occlusion.tolist()) <= {0, 1, 2}
    scored = (annotations.labels >= 1) & (annotations.labels <= 10)
    assert np.array_equal(annotations.score, scored.astype(int))


@pytest.mark.parametrize("seed", range(6))
def test_size_of_the_picture_is_within_the_settings(seed: int) -> None:
    height, width = full(seed)[1].size
    assert 1360 <= width <= 2000 and 765 <= height <= 1500


def test_sizes_classes_and_difficulties_are_mixed() -> None:
    scenes = [full(seed)[1] for seed in range(6)]
    side = np.concatenate([np.sqrt(area(s.objects.boxes)) for s in scenes])
    labels = np.concatenate([s.labels for s in scenes])
    assert 0.4 < (side < 32).mean() < 0.9
    assert (side > 64).mean() > 0.02
    assert set(range(1, 11)) <= set(labels.tolist())
    assert set(np.concatenate([s.occlusion for s in scenes]).tolist()) == {0, 1, 2}
    assert np.concatenate([s.truncation for s in scenes]).any()
    assert (labels == 0).any()


def test_objects_are_clustered() -> None:
    """Half of the objects lie in a small share of the picture, and much of it is empty."""
    for seed in range(6):
        objects = full(seed)[1].objects
        height, width = objects.size
        middle = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
        counts = np.histogram2d(
            middle[:, 1], middle[:, 0], bins=(12, 16), range=((0, height), (0, width))
        )[0].ravel()
        heaped = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
        assert (heaped < 0.5).mean() < 0.25
        assert (counts == 0).mean() > 0.2


def test_a_box_is_tight_on_what_was_drawn() -> None:
    camera = Camera.over((200, 300), 12.0, np.radians(55), 270.0)
    light = Light(np.array([0.0, 0.6, 0.8]), 0.7, 0.4)
    place = np.append(camera.to_ground(np.array([[150.0, 100.0]]))[0], 0.0)
    canvas = Canvas.over(np.full((200, 300, 3), (0, 255, 0), dtype=np.uint8))
    faces = seen(car(np.random.default_rng(1)), camera, light, place, 0.4)
    faces.paint(canvas, 7)
    found = look(canvas, 7, 4, faces.corners)
    assert found is not None and found.inside == 1.0
    changed = np.abs(canvas.pixels.astype(int) - (0, 255, 0)).max(axis=2) > 40
    rows, columns = np.nonzero(changed)
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(drawn - found.box).max() <= 1
    assert 0.45 < found.area / np.prod(drawn[2:] - drawn[:2]) <= 1.0


def test_zero_objects_and_no_ignored_regions() -> None:
    image, annotations = make_scene(1, SceneConfig(width=(640, 640), ignored=0, max_objects=0))
    assert len(annotations) == 0
    assert image.std() > 5


def test_items_do_not_depend_on_their_neighbours(tmp_path: Path) -> None:
    places = [("train", 0), ("train", 1), ("val", 0)]
    items = [make_item(split, index, SMALL) for split, index in places]
    paths = [
        write_item(tmp_path, split, *item, 90)
        for (split, _), item in zip(places, items, strict=True)
    ]
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == [
        "VisDrone2019-DET-train/images/train_00000.jpg",
        "VisDrone2019-DET-train/images/train_00001.jpg",
        "VisDrone2019-DET-val/images/val_00000.jpg",
    ]
    image, annotations = items[1]
    again = write_item(tmp_path / "again", "val", *make_item("val", 0, SMALL), 90)
    assert again.read_bytes() == paths[2].read_bytes()
    rows = paths[1].parent.parent / "annotations" / "train_00001.txt"
    read, warnings = read_annotations(rows, "train_00001", annotations.size)
    assert warnings == []
    assert np.array_equal(read.boxes, annotations.boxes)
    assert np.array_equal(read.labels, annotations.labels)
    assert np.abs(read_image(paths[1]).astype(int) - image).mean() < 8
