"""Trees and buildings: what hides objects and fills the empty areas."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dmnet.core.records import Image
from dmnet.pipeline.scenes.camera import Camera, Light, Points
from dmnet.pipeline.scenes.canvas import NOTHING, Canvas, hull, seen, shadow
from dmnet.pipeline.scenes.ground import Field
from dmnet.pipeline.scenes.mesh import Builder, Colour, Mesh, rectangle

_CROWN = 144

_LEAVES = np.array(
    [[66, 96, 44], [80, 106, 52], [54, 84, 44], [100, 116, 52], [58, 92, 58], [124, 112, 50]], float
)


@dataclass(frozen=True)
class Tree:
    """A crown of ``radius`` metres whose middle hangs at ``place`` ``(x, y, z)``; which sprite."""

    place: NDArray[np.float64]
    radius: float
    kind: int


def crowns(rng: np.random.Generator, camera: Camera, light: Light, count: int = 6) -> list[Image]:
    """Draw ``count`` crowns as RGBA sprites ``(144, 144, 4)``, lit from where the sun is."""
    base = _LEAVES[rng.integers(len(_LEAVES), size=2)]
    return [_crown(rng, base[i % 2] + rng.normal(0, 7, 3), camera, light) for i in range(count)]


def _crown(rng: np.random.Generator, base: Colour, camera: Camera, light: Light) -> Image:
    """A heap of leaf clumps: dark ones below, lit ones above."""
    lobes = rng.uniform(-0.45, 0.45, (7, 2))
    pick = rng.integers(len(lobes), size=420)
    angle, spread = rng.uniform(0, 2 * np.pi, 420), np.sqrt(rng.uniform(0, 1, 420)) * 0.46
    offset = lobes[pick] + spread[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radial = np.hypot(offset[:, 0], offset[:, 1])
    up = np.sqrt(np.clip(1 - radial**2, 0, 1)) + 0.5 * np.sqrt(np.clip(0.21 - spread**2, 0, 1))
    order = np.argsort(up)
    sin, cos = np.sin(camera.pitch), np.cos(camera.pitch)
    across, down = light.sun[0], -light.sun[1] * sin - light.sun[2] * cos
    toward = light.sun[2] * sin - light.sun[1] * cos
    lit = offset[:, 0] * across + offset[:, 1] * down + up * toward
    bright = 0.66 + 0.55 * light.direct * lit + 0.3 * (up - 0.6) + rng.normal(0, 0.11, 420)
    sprite = np.zeros((_CROWN, _CROWN, 4), dtype=np.uint8)
    middle = _CROWN / 2
    for i in order.tolist():
        at = (int(middle + offset[i, 0] * middle), int(middle + offset[i, 1] * middle))
        colour = np.clip(base * max(bright[i], 0.2) + rng.normal(0, 3, 3), 0, 255)
        size = int(rng.integers(3, 9))
        cv2.circle(sprite, at, size, (*colour.tolist(), 255), -1, cv2.LINE_AA)
    noise = rng.normal(0, 13, (_CROWN, _CROWN, 1))
    sprite[..., :3] = np.clip(sprite[..., :3] + noise * (sprite[..., :3] > 0), 0, 255)
    return sprite


def paint_tree(canvas: Canvas, camera: Camera, tree: Tree, sprites: list[Image]) -> None:
    """Lay a crown and its trunk over the picture."""
    place = tree.place[None]
    (x, y), scale = camera.project(place)[0], camera.scale(place)[0]
    radius = tree.radius * scale
    foot = camera.project(place * np.array([1.0, 1.0, 0.0]))[0]
    if foot[1] > y + 0.8 * radius:
        canvas.line(np.array([foot, [x, y]]), (74, 62, 50), max(1, int(0.25 * scale)))
    side = max(3, round(2 * radius))
    left, top = round(x - radius), round(y - radius)
    canvas.stamp(sprites[tree.kind % len(sprites)], (left, top, left + side, top + side))


def tree_shadow(camera: Camera, light: Light, tree: Tree) -> Points:
    """Outline of a crown's shadow, pixels ``(N, 2)``."""
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False) + tree.kind
    wobble = tree.radius * (0.86 + 0.1 * np.sin(turn * 3 + tree.kind * 1.7))
    round_ = np.stack([np.cos(turn), np.sin(turn)], axis=1) * wobble[:, None]
    return camera.project(tree.place[:2] + tree.place[2] * light.shift + round_)


@dataclass(frozen=True)
class Building:
    """A block of ``half`` ``(a, b)`` metres around ``place``, turned by ``heading``."""

    place: NDArray[np.float64]
    half: tuple[float, float]
    heading: float
    height: float
    wall: Colour
    roof: Colour
    style: int
    seed: int

    @property
    def mesh(self) -> Mesh:
        """Walls and a flat or hipped roof."""
        a, b = self.half
        outline, top = rectangle(-a, a, -b, b), (self.height, self.height + 0.01)
        builder = Builder().prism(outline, (0.0, self.height), self.wall, self.roof)
        if self.style == 2:
            rise = 0.45 * min(a, b)
            ridge = (
                rectangle(-a + 0.9 * b, a - 0.9 * b, -0.05, 0.05)
                if a > b
                else rectangle(-0.05, 0.05, -b + 0.9 * a, b - 0.9 * a)
            )
            eaves = rectangle(-a - 0.5, a + 0.5, -b - 0.5, b + 0.5)
            top = (self.height, self.height + rise)
            builder.prism(eaves, top, self.roof, lid=ridge, layer=1)
        return builder.build()

    @property
    def corners(self) -> Points:
        """Footprint ``(4, 2)`` in the world."""
        a, b = self.half
        sin, cos = np.sin(self.heading), np.cos(self.heading)
        return rectangle(-a, a, -b, b) @ np.array([[cos, sin], [-sin, cos]]) + self.place[:2]

    def at_height(self, z: float) -> Points:
        """The outline at height ``z``, ``(4, 3)``."""
        return np.column_stack([self.corners, np.full(4, z)])


def building_shadow(camera: Camera, light: Light, building: Building) -> Points:
    """Outline of a building's shadow, pixels ``(N, 2)``."""
    return shadow(building.mesh, camera, light, building.place, building.heading)


def paint_building(
    canvas: Canvas, camera: Camera, light: Light, building: Building, grain: Field
) -> None:
    """Walls with windows, then the roof with what stands on it."""
    rng = np.random.default_rng(building.seed)
    seen(building.mesh, camera, light, building.place, building.heading).paint(canvas, NOTHING)
    _windows(canvas, camera, building, rng)
    if building.style != 2:
        _flat_roof(canvas, camera, light, building, rng)
    _speckle(canvas, camera.project(building.at_height(building.height)), grain, 7.0)


def _windows(canvas: Canvas, camera: Camera, building: Building, rng: np.random.Generator) -> None:
    """Rows of panes on the walls that face the camera."""
    floors = int(building.height / 3.1)
    pane = np.array([52.0, 62.0, 74.0]) + rng.normal(0, 9, 3)
    corners = building.corners
    for i in range(4):
        a, b = corners[i], corners[(i + 1) % 4]
        outward = np.array([b[1] - a[1], a[0] - b[0]])
        if outward @ a >= 0:  # the camera hangs over (0, 0)
            continue
        columns = int(np.hypot(*(b - a)) / 2.6)
        if columns < 1 or floors < 1:
            continue
        quads = _panes(a, b, columns, floors, building.height, wide=building.style == 1)
        flat = camera.project(quads.reshape(-1, 3)).reshape(-1, 4, 2)
        canvas.polygons(list(flat), pane)


def _panes(
    a: Points, b: Points, columns: int, floors: int, height: float, *, wide: bool
) -> NDArray[np.float64]:
    margin = 0.04 if wide else 0.22
    start = (np.arange(columns) + margin) / columns
    stop = (np.arange(columns) + 1 - margin) / columns
    low = (np.arange(floors) + 0.28) * height / floors
    high = (np.arange(floors) + 0.78) * height / floors
    u = np.stack([start, stop, stop, start], axis=1)[:, None, :].repeat(floors, axis=1)
    z = np.stack([low, low, high, high], axis=1)[None].repeat(columns, axis=0)
    xy = a + (b - a) * u[..., None]
    return np.concatenate([xy, z[..., None]], axis=-1).reshape(-1, 4, 3)


def _flat_roof(
    canvas: Canvas, camera: Camera, light: Light, building: Building, rng: np.random.Generator
) -> None:
    """A parapet's rim, ribs of sheet metal, or boxes of machinery."""
    a, b = building.half
    z, top = building.height, camera.project(building.at_height(building.height))
    if building.style == 1:  # sheet metal: ribs across
        share = np.linspace(0, 1, max(3, int(2 * max(a, b) / 1.6)))[:, None]
        i = 0 if a >= b else 1
        one = top[i] + (top[(i + 1) % 4] - top[i]) * share
        two = top[(i + 3) % 4] + (top[(i + 2) % 4] - top[(i + 3) % 4]) * share
        for p, q in zip(one, two, strict=True):
            canvas.line(np.array([p, q]), building.roof * 0.86)
        return
    canvas.line(top[[0, 1, 2, 3, 0]], building.wall * 1.12, 2)
    sin, cos = np.sin(building.heading), np.cos(building.heading)
    for _ in range(int(rng.integers(2, 8))):
        u, v = rng.uniform(-0.75, 0.75) * a, rng.uniform(-0.75, 0.75) * b
        w, d, h = rng.uniform(0.6, 2.4), rng.uniform(0.6, 1.8), rng.uniform(0.6, 2.0)
        tone = np.full(3, rng.uniform(130, 210))
        mesh = Builder().box((-w, w), (-d, d), (0.0, h), tone * 0.9, tone).build()
        place = building.place + np.array([u * cos - v * sin, u * sin + v * cos, z])
        outline = _roof_shadow(mesh, camera, light, place, building.heading)
        canvas.polygon(outline, building.roof * light.shade, NOTHING)
        seen(mesh, camera, light, place, building.heading).paint(canvas, NOTHING)


def _roof_shadow(mesh: Mesh, camera: Camera, light: Light, place: Points, heading: float) -> Points:
    from dmnet.pipeline.scenes.mesh import turned

    world = turned(mesh.vertices, heading)
    flat = world[:, :2] + world[:, 2:] * light.shift + place[:2]
    return hull(camera.project(np.column_stack([flat, np.full(len(flat), place[2])])))


def _speckle(canvas: Canvas, outline: Points, grain: Field, amount: float) -> None:
    """Add grain to the pixels inside an outline."""
    height, width = canvas.size
    x1, y1 = np.clip(np.floor(outline.min(axis=0)), 0, [width, height]).astype(int)
    x2, y2 = np.clip(np.ceil(outline.max(axis=0)), 0, [width, height]).astype(int)
    if x1 >= x2 or y1 >= y2:
        return
    window = (slice(y1, y2), slice(x1, x2))
    mask = np.zeros((y2 - y1, x2 - x1), dtype=np.float32)
    cv2.fillConvexPoly(mask, np.round(outline - [x1, y1]).astype(np.int32), amount)
    part = canvas.pixels[window]
    part[:] = np.clip(part + (mask * grain[window])[..., None], 0, 255)
