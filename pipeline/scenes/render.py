"""From a plan to a picture and its annotations."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dmnet.core.records import OTHERS, Annotations, Image
from dmnet.pipeline.scenes.camera import Camera, Light
from dmnet.pipeline.scenes.canvas import Canvas, seen, shadow
from dmnet.pipeline.scenes.ground import Ground, Textures
from dmnet.pipeline.scenes.plan import Item, Plan
from dmnet.pipeline.scenes.props import (
    Building,
    Tree,
    building_shadow,
    crowns,
    paint_building,
    paint_tree,
    tree_shadow,
)

HIDDEN = 0.85
"""Objects of which more than this share is covered are not annotated."""

_INSIDE = 0.35
"""Nor are objects of which less than this share lies inside the picture."""


@dataclass
class Seen:
    """What was drawn of one object: box, pixels when drawn, and its share inside the picture."""

    label: int
    box: tuple[int, int, int, int]
    area: int
    inside: float


def paint_plan(plan: Plan, light: Light) -> tuple[Image, Annotations]:
    """Draw everything, far things first, and annotate what can be seen."""
    camera, rng = plan.camera, plan.rng
    textures = Textures.draw(rng, camera, plan.yaw)
    ground = Ground(camera, "pavement", rng.uniform(-14, 8))
    for areas, material, tint in plan.paints:
        ground.paint(areas, material, tint)
    ground.darken([building_shadow(camera, light, b) for b in plan.buildings])
    ground.darken([tree_shadow(camera, light, t) for t in plan.trees])
    still = ground.shadows.copy()
    meshes = [item.maker(rng) for item in plan.items]
    for item, mesh in zip(plan.items, meshes, strict=True):
        ground.darken([shadow(mesh, camera, light, item.place, item.heading)])
    canvas = Canvas.over(ground.finish(textures, light))
    sprites = crowns(rng, camera, light)
    drawn: dict[int, Seen] = {}
    for kind, index in drawing_order(plan):
        if kind == "building":
            grain = textures.fields["grain"]
            paint_building(canvas, camera, light, plan.buildings[index], grain)
        elif kind == "tree":
            paint_tree(canvas, camera, plan.trees[index], sprites)
        else:
            item = plan.items[index]
            dim = _dim(camera, light, item, still)
            faces = seen(meshes[index], camera, light, item.place, item.heading, dim)
            faces.paint(canvas, index)
            found = look(canvas, index, item.label, faces.corners)
            if found is not None:
                drawn[index] = found
    return canvas.pixels, annotate(canvas, drawn)


def _dim(camera: Camera, light: Light, item: Item, still: NDArray[np.uint8]) -> float:
    """Brightness of an object: less where it stands in the shadow of a tree or building."""
    height, width = still.shape
    x, y = camera.project(item.place[None])[0]
    row, column = int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1))
    return 1.0 - (1.0 - light.shade) * still[row, column] / 255


def drawing_order(plan: Plan) -> list[tuple[str, int]]:
    """Everything as ``(kind, index)``, so that what hides comes after what is hidden.

    Buildings from far to near; before each one the things behind it: those whose line of sight
    along the ground crosses its footprint. The rest by distance.
    """
    things: list[tuple[str, int, Item | Tree]] = [
        *(("item", i, item) for i, item in enumerate(plan.items)),
        *(("tree", i, tree) for i, tree in enumerate(plan.trees)),
    ]
    places = np.array([thing[2].place for thing in things]).reshape(-1, 3)[:, :2]
    lift = [0.0 if thing[0] == "item" else 0.5 for thing in things]
    far = np.argsort(-(plan.camera.depth(places) - lift), kind="stable")
    left = np.ones(len(things), dtype=bool)
    out: list[tuple[str, int]] = []
    nearest = np.array([plan.camera.depth(b.place[None])[0] for b in plan.buildings])
    for index in np.argsort(-nearest, kind="stable").tolist():
        behind = far[left[far] & _behind(plan.buildings[index], places)[far]]
        out += [things[i][:2] for i in behind.tolist()]
        left[behind] = False
        out.append(("building", index))
    return out + [things[i][:2] for i in far[left[far]].tolist()]


def _behind(building: Building, places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the line from below the camera to each place crosses the footprint (slab test)."""
    sin, cos = np.sin(building.heading), np.cos(building.heading)
    into = np.array([[cos, -sin], [sin, cos]])
    start, stop = -building.place[:2] @ into, (places - building.place[:2]) @ into
    step = stop - start
    with np.errstate(divide="ignore"):
        one = (-np.array(building.half) - start) / step
        two = (np.array(building.half) - start) / step
    enter = np.minimum(one, two).max(axis=1, initial=0.0)
    leave = np.maximum(one, two).min(axis=1, initial=1.0)
    return np.asarray(enter < leave)


def look(canvas: Canvas, index: int, label: int, corners: NDArray[np.float64]) -> Seen | None:
    """Measure an object right after it was drawn; None where nothing of it is in the picture."""
    height, width = canvas.size
    flat = corners.reshape(-1, 2)
    if not len(flat):
        return None
    low, high = flat.min(axis=0), flat.max(axis=0)
    x1, y1 = np.clip(np.floor(low).astype(int) - 1, 0, [width, height])
    x2, y2 = np.clip(np.ceil(high).astype(int) + 1, 0, [width, height])
    mine = canvas.owner[y1:y2, x1:x2] == index
    columns, rows = np.flatnonzero(mine.any(axis=0)), np.flatnonzero(mine.any(axis=1))
    if not len(columns):
        return None
    box = (x1 + columns[0], y1 + rows[0], x1 + columns[-1] + 1, y1 + rows[-1] + 1)
    whole = float(np.prod(np.maximum(high - low, 1.0)))
    shown = np.minimum(high, [width, height]) - np.maximum(low, 0)
    inside = float(np.prod(np.maximum(shown, 0.0))) / whole
    return Seen(label, tuple(map(int, box)), int(mine.sum()), inside)  # type: ignore[arg-type]


def annotate(canvas: Canvas, drawn: dict[int, Seen]) -> Annotations:
    """Boxes of all objects that can be seen, with their truncation and occlusion."""
    count = max(drawn, default=-1) + 1
    visible = np.bincount(canvas.owner[canvas.owner >= 0], minlength=count)
    rows = []
    for index, found in drawn.items():
        hidden = 1.0 - visible[index] / found.area
        if hidden > HIDDEN or found.inside < _INSIDE:
            continue
        occlusion = 0 if hidden < 0.03 else 1 if hidden <= 0.5 else 2
        truncation = int(found.inside < 0.98)
        score = int(found.label != OTHERS)
        rows.append((*found.box, found.label, score, truncation, occlusion))
    table = np.array(rows, dtype=np.int64).reshape(-1, 8)
    boxes, (labels, score, truncation, occlusion) = table[:, :4].astype(float), table[:, 4:].T
    return Annotations("scene", canvas.size, boxes, labels, score, truncation, occlusion)


def develop(image: Image, rng: np.random.Generator) -> Image:
    """What lens and sensor add: softness, contrast, white balance, noise."""
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.45, 0.75))
    contrast, lift = rng.uniform(0.92, 1.1), rng.uniform(-10, 8)
    balance = rng.uniform(0.97, 1.03, 3)
    levels = np.arange(256)
    table = np.stack([(levels - 128) * contrast * b + 128 * b + lift for b in balance], axis=-1)
    toned = cv2.LUT(soft, np.clip(table, 0, 255).astype(np.uint8)[None])
    return grain(toned, rng, rng.uniform(1.5, 4.0))


def grain(image: Image, rng: np.random.Generator, sigma: float) -> Image:
    """Add sensor noise from a shuffled tile."""
    height, width = image.shape[:2]
    tile = rng.normal(0, sigma, (256, 256, 3)).astype(np.int16)
    tile += rng.normal(0, sigma * 0.6, (256, 256, 1)).astype(np.int16)
    noise = np.tile(tile, (-(-height // 256), -(-width // 256), 1))[:height, :width]
    return np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)
