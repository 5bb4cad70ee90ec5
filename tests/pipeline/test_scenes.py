"""Scenes: the same seed, the same bytes; boxes and labels as VisDrone has them."""

from __future__ import annotations

import numpy as np

from dmnet.pipeline.scenes import SceneConfig, make_scene

SMALL = SceneConfig(width=(640, 640), scale=(7.0, 9.0))


def test_same_seed_same_bytes() -> None:
    one, first = make_scene(3, SMALL)
    two, second = make_scene(3, SMALL)
    assert one.tobytes() == two.tobytes()
    assert first.boxes.tobytes() == second.boxes.tobytes()
    assert one.tobytes() != make_scene(4, SMALL)[0].tobytes()


def test_boxes_lie_inside_and_labels_are_valid() -> None:
    for seed in range(3):
        image, annotations = make_scene(seed, SMALL)
        assert image.shape == (*annotations.size, 3)
        height, width = annotations.size
        boxes = annotations.boxes
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [width, height]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes == np.round(boxes)).all()
        assert set(annotations.labels.tolist()) <= set(range(12))
