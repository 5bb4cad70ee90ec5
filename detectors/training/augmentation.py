"""Augmentation of one training image on plain arrays; every random number comes from ``rng``.

Objects of aerial images are a few pixels wide, so nothing here resamples: zooming is cutting out or
padding (the network scales its input anyway), and the mosaic joins windows at the scale at which
the samples are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from dmnet.core import boxes as box
from dmnet.core.boxes import Boxes, Window
from dmnet.core.ranges import Count, Share
from dmnet.core.records import Image, Labels, Size
from dmnet.core.training import settings
from dmnet.core.training.settings import Zoom

GREY = 114
"""Value of pixels without a picture."""


class Scene(NamedTuple):
    """A training image: RGB uint8 pixels, boxes, labels, and regions that count for nothing."""

    image: Image
    boxes: Boxes
    labels: Labels
    ignore: Boxes


@dataclass(frozen=True)
class AugmentConfig(settings.AugmentConfig):
    """How training images are varied; zoom above 1 cuts out a part, below 1 adds a grey border."""

    crop_zoom: tuple[Zoom, Zoom] | None = None
    """zoom of crops, none: as zoom. The network enlarges crops much more than whole images; with
    zoom 0.8 3 and crop_zoom 0.4 1.2 object sizes of both meet"""
    mosaic: Share = 0.0
    """probability of joining windows of four images"""
    mosaic_off: Count = 5
    """last epochs without mosaic"""
    min_visible: Share = 0.3
    """share of an object's area that must remain; with less it becomes an ignored region"""

    def bounds(self, is_crop: bool) -> tuple[float, float]:
        """Least and greatest zoom of a crop, or of a whole image."""
        return self.crop_zoom if is_crop and self.crop_zoom is not None else self.zoom


def cut(scene: Scene, window: Window, min_visible: float) -> Scene:
    """The part of a scene inside ``window``, which may reach beyond the image (grey there)."""
    x1, y1, x2, y2 = window
    height, width = scene.image.shape[:2]
    image = np.full((y2 - y1, x2 - x1, 3), GREY, np.uint8)
    left, top, right, bottom = max(0, x1), max(0, y1), min(width, x2), min(height, y2)
    if left < right and top < bottom:
        image[top - y1 : bottom - y1, left - x1 : right - x1] = scene.image[top:bottom, left:right]
    size = (y2 - y1, x2 - x1)
    seen = box.visible(scene.boxes, window)
    keep, partly = seen >= min_visible, (seen > 0) & (seen < min_visible)
    shift = np.array([x1, y1, x1, y1], dtype=np.float64)
    regions = np.concatenate([scene.ignore, scene.boxes[partly]])
    return Scene(
        image,
        box.clip(scene.boxes[keep] - shift, size),
        scene.labels[keep],
        _with_area(box.clip(regions - shift, size)),
    )


def _with_area(boxes: Boxes) -> Boxes:
    return boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(axis=1)]


def flip(scene: Scene, axis: Literal["x", "y"]) -> Scene:
    """Mirror left-right (``x``) or top-bottom (``y``)."""
    height, width = scene.image.shape[:2]
    first, second, side = (0, 2, width) if axis == "x" else (1, 3, height)
    turned = [scene.boxes.copy(), scene.ignore.copy()]
    for boxes in turned:
        boxes[:, [first, second]] = side - boxes[:, [second, first]]
    image = scene.image[:, ::-1] if axis == "x" else scene.image[::-1]
    return Scene(np.ascontiguousarray(image), turned[0], scene.labels, turned[1])


def zoom(scene: Scene, factor: float, rng: np.random.Generator, min_visible: float) -> Scene:
    """Window of 1/``factor`` the sides at a random place; below 1 the image lies on grey."""
    height, width = scene.image.shape[:2]
    high, wide = max(1, round(height / factor)), max(1, round(width / factor))
    top, left = _between(0, height - high, rng), _between(0, width - wide, rng)
    return cut(scene, (left, top, left + wide, top + high), min_visible)


def _between(a: int, b: int, rng: np.random.Generator) -> int:
    return int(rng.integers(min(a, b), max(a, b) + 1))


def mosaic(scenes: list[Scene], rng: np.random.Generator, min_visible: float) -> Scene:
    """Four quadrants, each a random window of one scene, on a canvas of the first one's size."""
    height, width = scenes[0].image.shape[:2]
    row, column = (max(1, int(side * rng.uniform(0.3, 0.7))) for side in (height, width))
    places = [(0, 0, column, row), (column, 0, width, row)]
    places += [(0, row, column, height), (column, row, width, height)]
    canvas = np.full((height, width, 3), GREY, np.uint8)
    parts = []
    for scene, (x1, y1, x2, y2) in zip(scenes, places, strict=True):
        if x1 >= x2 or y1 >= y2:
            continue
        part = cut(scene, _window_of(scene, (y2 - y1, x2 - x1), rng), min_visible)
        canvas[y1:y2, x1:x2] = part.image
        shift = np.array([x1, y1, x1, y1], dtype=np.float64)
        parts.append((part.boxes + shift, part.labels, part.ignore + shift))
    joined = [np.concatenate(column_) for column_ in zip(*parts, strict=True)]
    return Scene(canvas, joined[0], joined[1], joined[2])


def _window_of(scene: Scene, size: Size, rng: np.random.Generator) -> Window:
    """A window of ``size`` within the scene, or around it where the scene is smaller."""
    height, width = scene.image.shape[:2]
    top, left = (_between(0, a - b, rng) for a, b in ((height, size[0]), (width, size[1])))
    return left, top, left + size[1], top + size[0]


def photometric(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Change contrast and brightness by a table, and saturation by mixing with the grey image."""
    contrast, saturation = 1 + strength * rng.uniform(-1, 1, 2)
    brightness = 128 * strength * rng.uniform(-1, 1)
    table = np.clip((np.arange(256) - 128) * contrast + 128 + brightness, 0, 255).astype(np.uint8)
    changed = cv2.LUT(image, table)
    grey = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed: Image = cv2.addWeighted(changed, saturation, grey, 1 - saturation, 0)
    return mixed


def grey_out(scene: Scene) -> Scene:
    """Paint ignored regions grey, objects inside them spared; no ignored regions remain."""
    image = scene.image.copy()
    for x1, y1, x2, y2 in _whole(scene.ignore):
        image[y1:y2, x1:x2] = GREY
    for x1, y1, x2, y2 in _whole(scene.boxes):
        image[y1:y2, x1:x2] = scene.image[y1:y2, x1:x2]
    return scene._replace(image=image, ignore=np.zeros((0, 4)))


def _whole(boxes: Boxes) -> list[list[int]]:
    """Boxes grown to whole pixels, not below 0."""
    low, high = np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])
    rows: list[list[int]] = np.concatenate([low, high], 1).clip(0).astype(int).tolist()
    return rows


def vary(
    scene: Scene, config: AugmentConfig, rng: np.random.Generator, *, is_crop: bool = False
) -> Scene:
    """Zoom, mirror and recolour one scene."""
    low, high = config.bounds(is_crop)
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if factor != 1.0:
        scene = zoom(scene, factor, rng, config.min_visible)
    if rng.random() < config.flip:
        scene = flip(scene, "x")
    if rng.random() < config.flip_vertical:
        scene = flip(scene, "y")
    if config.photometric > 0:
        scene = scene._replace(image=photometric(scene.image, config.photometric, rng))
    return scene
