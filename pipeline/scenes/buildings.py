"""Buildings: walls with windows, and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dmnet.pipeline.scenes.camera import Camera, Light, Points
from dmnet.pipeline.scenes.canvas import NOTHING, Canvas, hull, seen, shadow, window_of
from dmnet.pipeline.scenes.ground import Field
from dmnet.pipeline.scenes.mesh import Builder, Colour, Mesh, rectangle, turned
from dmnet.pipeline.scenes.palette import BRIGHT


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
        turn = np.array([[cos, sin], [-sin, cos]])
        return np.asarray(rectangle(-a, a, -b, b) @ turn + self.place[:2])

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
        _signs(canvas, camera, (a, b), columns, rng)


def _signs(
    canvas: Canvas,
    camera: Camera,
    wall: tuple[Points, Points],
    columns: int,
    rng: np.random.Generator,
) -> None:
    """Boards of shops over some of the doors."""
    a, b = wall
    for start in range(0, columns - 2, 3):
        if rng.random() < 0.35:
            ends = a + (b - a) * np.array([[start + 0.2], [start + 2.7]]) / columns
            foot, head = (np.column_stack([ends, np.full(2, z)]) for z in (2.6, 3.5))
            board = camera.project(np.vstack([foot, head[::-1]]))
            canvas.polygons([board], BRIGHT[rng.integers(len(BRIGHT))] * rng.uniform(0.6, 0.95))


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
    world = turned(mesh.vertices, heading)
    flat = world[:, :2] + world[:, 2:] * light.shift + place[:2]
    return hull(camera.project(np.column_stack([flat, np.full(len(flat), place[2])])))


def _speckle(canvas: Canvas, outline: Points, grain: Field, amount: float) -> None:
    """Add grain to the pixels inside an outline."""
    low, high = np.floor(outline.min(axis=0)), np.ceil(outline.max(axis=0))
    x1, y1, x2, y2 = window_of(canvas.size, low, high)
    if x1 >= x2 or y1 >= y2:
        return
    window = (slice(y1, y2), slice(x1, x2))
    mask = np.zeros((y2 - y1, x2 - x1), dtype=np.float32)
    cv2.fillConvexPoly(mask, np.round(outline - [x1, y1]).astype(np.int32), amount)
    part = canvas.pixels[window]
    part[:] = np.clip(part + (mask * grain[window])[..., None], 0, 255)
