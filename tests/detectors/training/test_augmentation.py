from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet.core import boxes as box
from dmnet.detectors.training import augmentation as augment
from dmnet.detectors.training.augmentation import GREY, AugmentConfig, Scene

NONE = np.zeros((0, 4))


def scene(
    boxes: list[list[float]],
    ignore: list[list[float]] | None = None,
    size: tuple[int, int] = (6, 8),
) -> Scene:
    image = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3)
    labels = np.arange(1, len(boxes) + 1)
    return Scene(image, box.as_boxes(boxes), labels, box.as_boxes(ignore or []))


def test_cut_inside_the_image() -> None:
    part = augment.cut(scene([[0, 0, 4, 2], [5, 1, 7, 5], [0, 4, 1, 6]]), (2, 1, 8, 6), 0.5)
    # the first box keeps a quarter of its area: it becomes an ignored region; the third has none
    assert part.image.shape == (5, 6, 3)
    assert part.boxes.tolist() == [[3, 0, 5, 4]]
    assert part.labels.tolist() == [2]
    assert part.ignore.tolist() == [[0, 0, 2, 1]]


def test_cut_beyond_the_image_is_grey() -> None:
    part = augment.cut(scene([[0, 0, 4, 2]]), (-2, -1, 10, 3), 0.5)
    assert part.image.shape == (4, 12, 3)
    assert (part.image[0] == GREY).all()
    assert (part.image[:, :2] == GREY).all()
    np.testing.assert_array_equal(part.image[1:, 2:10], scene([]).image[:3])
    assert part.boxes.tolist() == [[2, 1, 6, 3]]


def test_cut_of_an_empty_scene() -> None:
    part = augment.cut(scene([]), (0, 0, 2, 2), 0.5)
    assert part.boxes.shape == (0, 4)
    assert part.ignore.shape == (0, 4)


def test_flip_by_hand() -> None:
    turned = augment.flip(scene([[1, 2, 3, 6]], [[0, 0, 1, 1]]), "x")
    assert turned.boxes.tolist() == [[5, 2, 7, 6]]
    assert turned.ignore.tolist() == [[7, 0, 8, 1]]
    np.testing.assert_array_equal(turned.image, scene([]).image[:, ::-1])
    assert augment.flip(scene([[1, 2, 3, 6]]), "y").boxes.tolist() == [[1, 0, 3, 4]]


@given(st.sampled_from(["x", "y"]), st.integers(0, 4), st.integers(0, 3))
def test_flipping_twice_changes_nothing(axis: str, x: int, y: int) -> None:
    start = scene([[x, y, x + 2.5, y + 3]])
    again = augment.flip(augment.flip(start, axis), axis)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.image, start.image)
    np.testing.assert_array_equal(again.boxes, start.boxes)


def test_grey_out_spares_objects() -> None:
    done = augment.grey_out(scene([[1, 1, 3, 2]], [[0, 0, 4, 3]]))
    original = scene([]).image
    assert done.ignore.shape == (0, 4)
    np.testing.assert_array_equal(done.image[1, 1:3], original[1, 1:3])
    np.testing.assert_array_equal(done.image[3:], original[3:])
    assert (done.image[0, :4] == GREY).all()
    assert (done.image[1, 0] == GREY).all()


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_zoom_keeps_the_scale_of_objects(factor: float, rng: np.random.Generator) -> None:
    start = scene([[3, 2, 5, 4]], size=(60, 80))
    done = augment.zoom(start, factor, rng, 0.99)
    assert done.image.shape == (round(60 / factor), round(80 / factor), 3)
    for x1, y1, x2, y2 in done.boxes.astype(int).tolist():
        np.testing.assert_array_equal(done.image[y1:y2, x1:x2], start.image[2:4, 3:5])


def test_mosaic_pixels_and_boxes_belong_together(rng: np.random.Generator) -> None:
    scenes = []
    for value in (10, 20, 30, 40):
        image = np.zeros((30, 40, 3), np.uint8)
        image[5:9, 6:12] = value
        one = Scene(image, box.as_boxes([[6, 5, 12, 9]]), np.array([value]), NONE)
        scenes.append(one)
    seen = 0
    for _ in range(30):
        joined = augment.mosaic(scenes, rng, 0.999)
        assert joined.image.shape == (30, 40, 3)
        for (x1, y1, x2, y2), label in zip(
            joined.boxes.astype(int).tolist(), joined.labels.tolist(), strict=True
        ):
            assert (joined.image[y1:y2, x1:x2] == label).all()
            assert (x2 - x1, y2 - y1) == (6, 4)
            seen += 1
    assert seen > 10


def test_photometric_strength_zero_changes_nothing(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (5, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(augment.photometric(image, 0.0, rng), image)
    assert (augment.photometric(image, 0.5, rng) != image).any()


def test_the_same_seed_gives_the_same_scene() -> None:
    config = AugmentConfig(flip=0.5, flip_vertical=0.5, zoom=(0.5, 2.0))
    start = scene([[1, 1, 5, 4]], size=(40, 50))
    first, second, other = (
        augment.vary(start, config, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


@given(st.integers(0, 1000))
def test_boxes_stay_inside(seed: int) -> None:
    config = AugmentConfig(zoom=(0.4, 3.0), flip=0.5, flip_vertical=0.5)
    start = scene([[0, 0, 9, 7], [30, 20, 40, 30], [5, 5, 6, 6]], [[10, 10, 39, 29]], (30, 40))
    done = augment.vary(start, config, np.random.default_rng(seed))
    height, width = done.image.shape[:2]
    for boxes in (done.boxes, done.ignore):
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [width, height]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(done.boxes) == len(done.labels)


def test_crops_have_a_zoom_of_their_own() -> None:
    one = AugmentConfig(zoom=(2.0, 2.0), flip=0.0, photometric=0.0)
    own = replace(one, crop_zoom=(0.5, 0.5))
    start = scene([[0, 0, 4, 2]])
    sizes = [
        augment.vary(start, config, np.random.default_rng(0), is_crop=is_crop).image.shape[:2]
        for config in (one, own)
        for is_crop in (False, True)
    ]
    assert sizes == [(3, 4), (3, 4), (3, 4), (12, 16)]
