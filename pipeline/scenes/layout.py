"""Pictures for boxes that somebody else placed: the layout is given, only the pixels are drawn."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import Boxes
from dmnet.core.classes import IGNORED_REGION
from dmnet.core.records import Annotations, Image
from dmnet.pipeline.scenes.buildings import building_shadow, paint_building
from dmnet.pipeline.scenes.camera import Camera, Light, Points
from dmnet.pipeline.scenes.canvas import NOTHING, Canvas, Faces, seen, shadow, window_of
from dmnet.pipeline.scenes.ground import Ground, Textures
from dmnet.pipeline.scenes.guess import (
    CELL,
    VEHICLES,
    cells_of,
    close_gaps,
    guess_camera,
    runs,
    street_direction,
)
from dmnet.pipeline.scenes.lens import develop, soften
from dmnet.pipeline.scenes.mesh import Mesh
from dmnet.pipeline.scenes.objects import BICYCLE, CAR, MAKERS, MOTOR, PEDESTRIAN, PEOPLE, rider
from dmnet.pipeline.scenes.order import drawing_order
from dmnet.pipeline.scenes.plan import Plan
from dmnet.pipeline.scenes.trees import crowns, paint_tree, tree_shadow

_HEADINGS = 16


def render_layout(annotations: Annotations, seed: int) -> Image:
    """Draw a picture in which every object fills the box that is given.

    Camera, streets and squares are guessed from sizes and places of the boxes; trees and buildings
    stand only where nothing is annotated; ignored regions become blurred crowds. Everything but the
    boxes comes from the seed.

    Args:
        annotations: boxes, categories and size of the picture; they are not changed.
        seed: decides colours, ground and light.

    Returns:
        ``(H, W, 3)`` RGB.
    """
    rng = np.random.default_rng([seed, 1])
    camera, light = guess_camera(annotations), Light.draw(rng)
    feet = camera.to_ground(_feet(annotations.boxes))
    traffic = feet[np.isin(annotations.labels, VEHICLES)]
    plan = Plan(camera, rng, street_direction(traffic))
    textures = Textures.draw(rng, camera, plan.yaw)
    ground = Ground(camera, "grass", rng.uniform(-8, 10))
    _pave(ground, plan, annotations, feet)
    _fill_free(plan, ground, annotations.boxes)
    meshes = _meshes(annotations, rng)
    poses = [fit_pose(plan, light, m, b) for m, b in zip(meshes, _full(annotations), strict=True)]
    ground.darken([building_shadow(camera, light, b) for b in plan.buildings])
    ground.darken([tree_shadow(camera, light, t) for t in plan.trees])
    is_region = annotations.labels == IGNORED_REGION
    ground.darken([outline for (_, outline), r in zip(poses, is_region, strict=True) if not r])
    canvas = Canvas.over(ground.finish(textures, light))
    _scenery(canvas, plan, light, crowns(rng, camera, light), textures)
    for box in annotations.boxes[is_region]:
        _crowd(canvas, camera, light, rng, box)
    for index in np.argsort(annotations.boxes[:, 3], kind="stable").tolist():
        if not is_region[index]:
            poses[index][0].paint(canvas, index)
    return develop(canvas.pixels, rng)


def _feet(boxes: Boxes) -> Points:
    """Where the objects stand: the middle of the lower part of each box, ``(N, 2)`` pixels."""
    height = boxes[:, 3] - boxes[:, 1]
    return np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3] - 0.3 * height], axis=1)


def _full(annotations: Annotations) -> Boxes:
    """Boxes; those that the border cuts reach a bit beyond it, as the whole object would."""
    boxes = annotations.boxes.copy()
    height, width = annotations.size
    more = 0.5 * (boxes[:, 2:] - boxes[:, :2]) * (annotations.truncation > 0)[:, None]
    boxes[:, 0] -= more[:, 0] * (boxes[:, 0] <= 1)
    boxes[:, 1] -= more[:, 1] * (boxes[:, 1] <= 1)
    boxes[:, 2] += more[:, 0] * (boxes[:, 2] >= width - 1)
    boxes[:, 3] += more[:, 1] * (boxes[:, 3] >= height - 1)
    return boxes


def _meshes(annotations: Annotations, rng: np.random.Generator) -> list[Mesh]:
    """One solid an object; people on a motor or bicycle become riders."""
    two_wheels = annotations.boxes[np.isin(annotations.labels, (BICYCLE, MOTOR))]
    out = []
    for box, label in zip(annotations.boxes, annotations.labels.tolist(), strict=True):
        x, y = (box[0] + box[2]) / 2, box[3]
        hit = (two_wheels[:, 0] <= x) & (x <= two_wheels[:, 2])
        hit &= (two_wheels[:, 1] <= y) & (y <= two_wheels[:, 3] + 1)
        maker = rider if label == PEOPLE and hit.any() else MAKERS.get(label, MAKERS[CAR])
        out.append(maker(rng))
    return out


def fit_pose(
    plan: Plan, light: Light, mesh: Mesh, box: NDArray[np.float64]
) -> tuple[Faces, Points]:
    """Turn a solid so that its outline has the proportions of the box, then fit it exactly.

    Of turns that fit alike, those along the streets are taken.

    Returns:
        Its faces, and the outline of its shadow, in pixels.
    """
    camera, rng, yaw = plan.camera, plan.rng, plan.yaw
    place = np.append(camera.to_ground(_feet(box[None]))[0], 0.0)
    wanted = np.log(max(box[2] - box[0], 1.0) / max(box[3] - box[1], 1.0))
    turns = np.arange(_HEADINGS) * 2 * np.pi / _HEADINGS
    misses = []
    for angle in turns + yaw:
        sin, cos = np.sin(angle), np.cos(angle)
        world = mesh.vertices @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + place
        wide, high = np.ptp(camera.project(world), axis=0)
        astray = 0.0 if np.isclose(np.sin(2 * (angle - yaw)), 0.0, atol=1e-9) else 0.12
        misses.append(abs(np.log(wide / high) - wanted) + astray + rng.uniform(0, 0.05))
    heading = float(turns[int(np.argmin(misses))] + yaw)
    faces = seen(mesh, camera, light, place, heading)
    flat = faces.corners.reshape(-1, 2)
    low, span = flat.min(axis=0), np.ptp(flat, axis=0)
    factor = (box[2:] - box[:2]) / np.maximum(span, 1e-6)
    fitted = Faces((faces.corners - low) * factor + box[:2], faces.colours)
    outline = shadow(mesh, camera, light, place, heading)
    return fitted, (outline - low) * factor + box[:2]


def _pave(ground: Ground, plan: Plan, annotations: Annotations, feet: Points) -> None:
    """Asphalt below vehicles, slabs below people, both in the direction of the streets."""
    u1, u2, v1, v2 = plan.extent
    low = np.array([u1, v1])
    shape = (int((u2 - u1) / CELL) + 1, int((v2 - v1) / CELL) + 1)
    town = (feet - plan.origin) @ np.array(
        [[np.cos(plan.yaw), -np.sin(plan.yaw)], [np.sin(plan.yaw), np.cos(plan.yaw)]]
    )
    on_foot = np.isin(annotations.labels, (PEDESTRIAN, PEOPLE, BICYCLE, MOTOR))
    on_road = np.isin(annotations.labels, VEHICLES)
    road = close_gaps(_grown(cells_of(town[on_road], low, shape), 1), 8)
    walk = _grown(close_gaps(cells_of(town[on_foot], low, shape), 5), 1) | _grown(road, 1)
    material = str(plan.rng.choice(["pavement", "plaza", "concrete"]))
    for cells, name in ((walk, material), (road, "asphalt")):
        for column in range(shape[0]):
            for start, stop in runs(cells[column]):
                at = low + np.array([column, start]) * CELL
                end = low + np.array([column + 1.02, stop]) * CELL
                area = np.array([at, [end[0], at[1]], end, [at[0], end[1]]])
                ground.paint([plan.world(area)], name)
    ground.paint([plan.world(q) for q in _dashes(road, low)], "paint")


def _dashes(road: NDArray[np.bool_], low: Points) -> list[Points]:
    """Broken lines along stretches of road of more than 28 metres, all in one direction."""
    out = []
    longest = [
        max((b - a for line in way for a, b in runs(line)), default=0) for way in (road, road.T)
    ]
    axis, lines = (1, road) if longest[0] >= longest[1] else (0, road.T)
    for number in range(0, len(lines), 3):
        for start, stop in runs(lines[number]):
            for s in np.arange(start * CELL, stop * CELL, 6.0) if stop - start > 7 else ():
                quad = np.array([[0, s], [0.18, s], [0.18, s + 2.6], [0, s + 2.6]])
                quad[:, 0] += number * CELL
                out.append((quad if axis == 1 else quad[:, ::-1]) + low)
    return out


def _grown(cells: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return np.asarray(cv2.dilate(cells.astype(np.uint8), kernel) > 0)


def _fill_free(plan: Plan, ground: Ground, boxes: Boxes) -> None:
    """Buildings, then trees off the road, where they hide no box."""
    height, width = plan.camera.size
    taken = np.zeros((height, width), dtype=np.uint8)
    for x1, y1, x2, y2 in np.round(boxes).astype(int).tolist():
        taken[max(y1 - 3, 0) : y2 + 3, max(x1 - 3, 0) : x2 + 3] = 1
    rng, (u1, u2, v1, v2) = plan.rng, plan.extent
    for _ in range(60):
        u, v = rng.uniform(u1, u2), rng.uniform(v1, v2)
        a, b = rng.uniform(6, 13, 2)
        before = len(plan.buildings)
        plan.building((u - a, u + a, v - b, v + b), float(rng.choice([4.5, 6.5, 9.5, 12.5])))
        if len(plan.buildings) > before:
            new = plan.buildings[-1]
            solid = np.vstack([new.at_height(0.0), new.at_height(new.height + 2)])
            if not _claim(taken, plan.camera.project(solid)):
                plan.buildings.pop()
    spots = rng.uniform([u1, v1], [u2, v2], (700, 2))
    for spot in spots[plan.in_view(spots, 60)]:
        if ground.material_at(plan.world(spot[None])) == "asphalt":
            continue
        plan.tree((spot[0], spot[1]), rng.uniform(1.4, 4.0))
        place = plan.trees[-1].place[None]
        reach = plan.trees[-1].radius * plan.camera.scale(place)
        outline = plan.camera.project(place) + np.array([[-1, -1], [1, 1]]) * reach
        if not _claim(taken, outline, keep=True):
            plan.trees.pop()


def _claim(taken: NDArray[np.uint8], points: Points, *, keep: bool = False) -> bool:
    """Whether the rectangle around the points is free; it is taken from then on unless ``keep``."""
    x1, y1, x2, y2 = window_of(taken.shape, points.min(axis=0), points.max(axis=0) + 1)
    part = taken[y1:y2, x1:x2]
    if part.any():
        return False
    if not keep:
        part[:] = 1
    return True


def _scenery(
    canvas: Canvas, plan: Plan, light: Light, sprites: list[Image], textures: Textures
) -> None:
    for kind, index in drawing_order(plan):
        if kind == "building":
            grain = textures.fields["grain"]
            paint_building(canvas, plan.camera, light, plan.buildings[index], grain)
        else:
            paint_tree(canvas, plan.camera, plan.trees[index], sprites)


def _crowd(
    canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator, box: NDArray[np.float64]
) -> None:
    """A blurred crowd that fills an ignored region."""
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    scale = float(camera.scale(camera.to_ground(np.array([[(x1 + x2) / 2, (y1 + y2) / 2]])))[0])
    count = int(np.clip((x2 - x1) * (y2 - y1) / (2.2 * scale) ** 2, 3, 90))
    label = int(rng.choice([PEDESTRIAN, PEDESTRIAN, MOTOR, CAR]))
    spots = np.stack([rng.uniform(x1, x2, count), np.sort(rng.uniform(y1, y2, count))], axis=1)
    for place in camera.to_ground(spots):
        mesh = MAKERS[label](rng)
        faces = seen(mesh, camera, light, np.append(place, 0.0), rng.uniform(0, 6.3), 0.85)
        faces.paint(canvas, NOTHING)
    soften(canvas.pixels, (x1, y1, x2, y2), 1.5 + 0.12 * scale)
