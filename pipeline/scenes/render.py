"""From a plan to a picture and its annotations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import visible
from dmnet.core.classes import IGNORED_REGION, OTHERS
from dmnet.core.records import Annotations, Image
from dmnet.pipeline.scenes.buildings import building_shadow, paint_building
from dmnet.pipeline.scenes.camera import Camera, Light
from dmnet.pipeline.scenes.canvas import Canvas, seen, shadow, window_of
from dmnet.pipeline.scenes.ground import Ground, Textures
from dmnet.pipeline.scenes.lens import soften
from dmnet.pipeline.scenes.order import drawing_order
from dmnet.pipeline.scenes.plan import Item, Plan
from dmnet.pipeline.scenes.trees import crowns, paint_tree, tree_shadow

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


def paint_plan(plan: Plan, light: Light, ignored: int = 0) -> tuple[Image, Annotations]:
    """Draw everything, far things first, and annotate what can be seen.

    ``ignored`` far groups of objects are blurred and become ignored regions instead.
    """
    camera, rng = plan.camera, plan.rng
    used = {name for _, name, _ in plan.paints}
    textures = Textures.draw(rng, camera, plan.yaw, furrows="crops" in used)
    ground = Ground(camera, "pavement", rng.uniform(-14, 8))
    for areas, material, tint in plan.paints:
        ground.paint(areas, material, tint)
    for area, strength in plan.stains:
        ground.darken_ground(area, strength)
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
    annotations = annotate(canvas, drawn)
    for _ in range(ignored):
        annotations = blur_group(canvas, camera, annotations, rng)
    return canvas.pixels, annotations


def _dim(camera: Camera, light: Light, item: Item, still: NDArray[np.uint8]) -> float:
    """Brightness of an object: less where it stands in the shadow of a tree or building."""
    height, width = still.shape
    x, y = camera.project(item.place[None])[0]
    row, column = int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1))
    return 1.0 - (1.0 - light.shade) * float(still[row, column]) / 255


def look(canvas: Canvas, index: int, label: int, corners: NDArray[np.float64]) -> Seen | None:
    """Measure an object right after it was drawn; None where nothing of it is in the picture."""
    flat = corners.reshape(-1, 2)
    if not len(flat):
        return None
    low, high = flat.min(axis=0), flat.max(axis=0)
    x1, y1, x2, y2 = window_of(canvas.size, np.floor(low) - 1, np.ceil(high) + 1)
    mine = canvas.owner[y1:y2, x1:x2] == index
    columns, rows = np.flatnonzero(mine.any(axis=0)), np.flatnonzero(mine.any(axis=1))
    if not len(columns):
        return None
    box = (x1 + columns[0], y1 + rows[0], x1 + columns[-1] + 1, y1 + rows[-1] + 1)
    whole = float(np.prod(np.maximum(high - low, 1.0)))
    shown = np.minimum(high, canvas.size[::-1]) - np.maximum(low, 0)
    inside = float(np.prod(np.maximum(shown, 0.0))) / whole
    return Seen(label, tuple(map(int, box)), int(mine.sum()), inside)  # type: ignore[arg-type]


def annotate(canvas: Canvas, drawn: dict[int, Seen]) -> Annotations:
    """Boxes of all objects that can be seen, with their truncation and occlusion."""
    count = max(drawn, default=-1) + 1
    shown = np.bincount(canvas.owner[canvas.owner >= 0], minlength=count)
    rows = []
    for index, found in drawn.items():
        hidden = 1.0 - shown[index] / found.area
        if hidden > HIDDEN or found.inside < _INSIDE:
            continue
        occlusion = 0 if hidden < 0.03 else 1 if hidden <= 0.5 else 2
        truncation = int(found.inside < 0.98)
        score = int(found.label != OTHERS)
        rows.append((*found.box, found.label, score, truncation, occlusion))
    table = np.array(rows, dtype=np.int64).reshape(-1, 8)
    boxes, (labels, score, truncation, occlusion) = table[:, :4].astype(float), table[:, 4:].T
    return Annotations("scene", canvas.size, boxes, labels, score, truncation, occlusion)


def blur_group(
    canvas: Canvas, camera: Camera, annotations: Annotations, rng: np.random.Generator
) -> Annotations:
    """Turn one group of far objects into an ignored region: blurred, no longer annotated."""
    far = np.flatnonzero(~annotations.ignore)
    far = far[np.argsort(annotations.boxes[far, 3], kind="stable")][: len(far) // 3]
    if not len(far):
        return annotations
    x, y = annotations.boxes[rng.choice(far), 2:]
    scale = float(camera.scale(camera.to_ground(np.array([[x, y]])))[0])
    half = np.array([rng.uniform(3, 9), rng.uniform(1.5, 4)]) * scale
    place = np.array([x, y])
    region = window_of(canvas.size, place - half, place + half)
    soften(canvas.pixels, region, 1.2 + 0.1 * scale)
    share = visible(annotations.boxes, region)
    kept = annotations[share < 0.5]
    return replace(
        kept,
        boxes=np.vstack([kept.boxes, np.array([region], dtype=np.float64)]),
        labels=np.append(kept.labels, IGNORED_REGION),
        score=np.append(kept.score, 0),
        truncation=np.append(kept.truncation, 0),
        occlusion=np.append(kept.occlusion, 0),
    )
