"""The picture while it is painted: pixels, and which object each pixel belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmnet.core.boxes import Window
from dmnet.core.records import Image, Size
from dmnet.pipeline.scenes.camera import Camera, Light, Points
from dmnet.pipeline.scenes.mesh import Mesh, turned

NOTHING = -1
"""Owner of ground, trees and buildings."""

_SHIFT = 4


def fixed(points: Points) -> NDArray[np.int32]:
    """Half-open pixels as OpenCV's fixed-point numbers, where pixel centres are whole."""
    steps = np.round((points - 0.5) * 2**_SHIFT).clip(-(2**26), 2**26)
    return np.asarray(steps, dtype=np.int32)


def window_of(size: Size, low: Points, high: Points) -> Window:
    """The part of a picture from ``low`` to ``high`` ``(x, y)``, cut to whole pixels inside it."""
    corners = np.clip([low, high], 0, [size[1], size[0]]).astype(int)
    x1, y1, x2, y2 = corners.ravel().tolist()
    return x1, y1, x2, y2


@dataclass(frozen=True)
class Canvas:
    """``pixels`` ``(H, W, 3)`` uint8 RGB and ``owner`` ``(H, W)`` int32, both painted in place."""

    pixels: Image
    owner: NDArray[np.int32]

    @classmethod
    def over(cls, pixels: Image) -> Canvas:
        """Start from painted ground."""
        return cls(pixels, np.full(pixels.shape[:2], NOTHING, dtype=np.int32))

    @property
    def size(self) -> Size:
        """``(height, width)``."""
        return self.owner.shape[0], self.owner.shape[1]

    def polygon(self, points: Points, colour: ArrayLike, owner: int) -> None:
        """Fill a convex polygon, ``(N, 2)`` pixels, soft-edged."""
        corners = fixed(points)
        rgb = np.clip(colour, 0, 255).tolist()
        cv2.fillConvexPoly(self.pixels, corners, rgb, cv2.LINE_AA, _SHIFT)
        cv2.fillConvexPoly(self.owner, corners, owner, cv2.LINE_8, _SHIFT)

    def polygons(self, points: list[Points], colour: ArrayLike) -> None:
        """Fill many polygons that do not overlap with one colour; they change no owner."""
        rgb = np.clip(colour, 0, 255).tolist()
        cv2.fillPoly(self.pixels, [fixed(p) for p in points], rgb, cv2.LINE_AA, _SHIFT)

    def line(self, points: Points, colour: ArrayLike, width: int = 1) -> None:
        """Draw one open line; it changes no owner."""
        rgb = np.clip(colour, 0, 255).tolist()
        cv2.polylines(self.pixels, [fixed(points)], False, rgb, width, cv2.LINE_AA, _SHIFT)

    def stamp(self, sprite: Image, box: tuple[int, int, int, int]) -> None:
        """Lay an RGBA sprite over a window ``x1, y1, x2, y2`` that may leave the picture."""
        x1, y1, x2, y2 = box
        height, width = self.size
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if left >= right or top >= bottom:
            return
        scaled = cv2.resize(sprite, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)
        part = scaled[top - y1 : bottom - y1, left - x1 : right - x1]
        alpha = part[..., 3:].astype(np.uint16)
        under = self.pixels[top:bottom, left:right]
        under[:] = (part[..., :3] * alpha + under * (255 - alpha)) // 255
        self.owner[top:bottom, left:right][part[..., 3] > 127] = NOTHING


@dataclass(frozen=True)
class Faces:
    """Visible faces of a solid in drawing order: corners ``(F, 8, 2)``, colours ``(F, 3)``."""

    corners: Points
    colours: NDArray[np.float64]

    def paint(self, canvas: Canvas, owner: int) -> None:
        """Fill them one after another."""
        corners, colours = fixed(self.corners), np.clip(self.colours, 0, 255).tolist()
        for points, colour in zip(corners, colours, strict=True):
            cv2.fillConvexPoly(canvas.pixels, points, colour, cv2.LINE_AA, _SHIFT)
            cv2.fillConvexPoly(canvas.owner, points, owner, cv2.LINE_8, _SHIFT)


def seen(
    mesh: Mesh, camera: Camera, light: Light, place: ArrayLike, heading: float, dim: float = 1.0
) -> Faces:
    """Project and shade a solid that stands at ``place`` ``(x, y, z)``, turned by ``heading``.

    ``dim`` darkens it, for solids that stand in a shadow.
    """
    world = turned(mesh.vertices, heading) + np.asarray(place, dtype=np.float64)
    corners = camera.project(world)[mesh.faces]
    following = np.roll(corners, -1, axis=1)
    area = (corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]).sum(axis=1)
    flat = np.column_stack([mesh.middles, np.zeros(len(mesh.middles))])
    far = camera.depth(turned(flat, heading) + np.asarray(place, dtype=np.float64))
    order = np.lexsort((-far[mesh.part], mesh.layers[mesh.part]))
    order = order[area[order] < 0]
    shade = light.on(turned(mesh.normals, heading)) * dim
    return Faces(corners[order], (mesh.colours * shade[:, None])[order])


def shadow(mesh: Mesh, camera: Camera, light: Light, place: ArrayLike, heading: float) -> Points:
    """Outline of a solid's shadow on the ground, pixels ``(N, 2)``."""
    world = turned(mesh.vertices, heading) + np.asarray(place, dtype=np.float64)
    return hull(camera.project(world[:, :2] + world[:, 2:] * light.shift))


def hull(points: Points) -> Points:
    """Convex hull of pixels ``(N, 2)``."""
    return np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], dtype=np.float64)
