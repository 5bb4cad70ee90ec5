"""Trees: sprites of leaf clumps that hide what is below them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dmnet.core.records import Image
from dmnet.pipeline.scenes.camera import Camera, Light, Points
from dmnet.pipeline.scenes.canvas import Canvas
from dmnet.pipeline.scenes.mesh import Colour

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
