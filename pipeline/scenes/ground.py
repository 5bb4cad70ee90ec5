"""Ground: flat materials painted in world coordinates, then textured at three scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmnet.core.records import Image
from dmnet.pipeline.scenes.camera import Camera, Light, Points
from dmnet.pipeline.scenes.canvas import fixed

Field = NDArray[np.float32]
"""``(H, W)`` float32."""


@dataclass(frozen=True)
class Material:
    """Mean colour and strength of its textures: grain, patches, drift, slabs and furrows."""

    colour: tuple[int, int, int]
    grain: float
    patches: float
    drift: float
    slabs: float = 0.0
    furrows: float = 0.0


MATERIALS: dict[str, Material] = {
    "grass": Material((100, 108, 70), 17, 15, 18),
    "meadow": Material((134, 130, 92), 16, 16, 20),
    "soil": Material((142, 116, 90), 11, 13, 18),
    "crops": Material((100, 112, 68), 12, 8, 12, furrows=22),
    "asphalt": Material((104, 105, 107), 6, 6, 9),
    "worn": Material((128, 126, 121), 7, 10, 11),
    "concrete": Material((158, 154, 146), 6, 7, 8, slabs=10),
    "pavement": Material((164, 150, 138), 8, 6, 6, slabs=14),
    "plaza": Material((170, 164, 154), 5, 5, 7, slabs=18),
    "brick": Material((150, 112, 98), 8, 6, 6, slabs=12),
    "water": Material((66, 88, 84), 2, 4, 10),
    "paint": Material((214, 213, 206), 12, 16, 5),
    "yellow": Material((206, 166, 62), 12, 14, 5),
    "kerb": Material((178, 175, 168), 6, 6, 4),
    "hedge": Material((56, 82, 40), 24, 10, 8),
}
"""What the ground can be made of."""

_CODES = {name: code for code, name in enumerate(MATERIALS)}


class Ground:
    """A picture of flat ground: `paint` materials from the bottom up, then `finish`."""

    def __init__(self, camera: Camera, base: str, tint: ArrayLike = 0.0) -> None:
        """Cover everything with one material; ``tint`` is added to its colour."""
        self.camera = camera
        self.pixels: Image = np.empty((*camera.size, 3), dtype=np.uint8)
        self.codes: NDArray[np.uint8] = np.full(camera.size, _CODES[base], dtype=np.uint8)
        self.pixels[:] = np.clip(np.array(MATERIALS[base].colour) + np.asarray(tint), 0, 255)
        self.shadows: NDArray[np.uint8] = np.zeros(camera.size, dtype=np.uint8)

    def paint(self, areas: list[Points], material: str, tint: ArrayLike = 0.0) -> None:
        """Fill ground polygons (world, ``(N, 2)`` each) that do not overlap one another."""
        corners = [fixed(p) for p in map(self._pixels, areas) if len(p) >= 3]
        if corners:
            colour = np.clip(np.array(MATERIALS[material].colour) + np.asarray(tint), 0, 255)
            cv2.fillPoly(self.pixels, corners, colour.tolist(), cv2.LINE_AA, 4)
            cv2.fillPoly(self.codes, corners, _CODES[material], cv2.LINE_8, 4)

    def darken(self, outlines: list[Points], strength: int = 255) -> None:
        """Add shadows, pixel outlines ``(N, 2)`` each, 255 being full shadow."""
        for outline in outlines:
            cv2.fillConvexPoly(self.shadows, fixed(outline), strength, cv2.LINE_AA, 4)

    def darken_ground(self, area: Points, strength: int) -> None:
        """Add a stain, a ground polygon ``(N, 2)``."""
        near = self._pixels(area)
        if len(near) >= 3:
            self.darken([near], strength)

    def _pixels(self, area: Points) -> Points:
        near = clip_near(area, self.camera)
        return self.camera.project(near) if len(near) else near

    def material_at(self, place: Points) -> str:
        """Name of the material at a place ``(1, 2)`` in the world, or at the border next to it."""
        (x, y), (height, width) = self.camera.project(place)[0], self.codes.shape
        row, column = int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1))
        return list(MATERIALS)[int(self.codes[row, column])]

    def finish(self, textures: Textures, light: Light) -> Image:
        """Texture and shadow; the finished ground ``(H, W, 3)``."""
        total = np.zeros(self.codes.shape, dtype=np.float32)
        for name, field in textures.fields.items():
            table = np.zeros(256, dtype=np.float32)
            table[: len(MATERIALS)] = [getattr(m, name) for m in MATERIALS.values()]
            cv2.accumulateProduct(cv2.LUT(self.codes, table), field, total)
        shadow = cv2.GaussianBlur(self.shadows, (0, 0), 1.2)
        gain = 1.0 - shadow.astype(np.float32) * ((1.0 - light.shade) / 255)
        planes = [
            cv2.multiply(cv2.scaleAdd(total, warm, plane.astype(np.float32)), gain, dtype=cv2.CV_8U)
            for warm, plane in zip((1.08, 1.0, 0.9), cv2.split(self.pixels), strict=True)
        ]
        return np.asarray(cv2.merge(planes), dtype=np.uint8)


def clip_near(area: Points, camera: Camera) -> Points:
    """The part of a polygon on the ground that lies in front of the camera (Sutherland-Hodgman)."""
    gap = camera.depth(area) - 0.25 * camera.height
    if (gap >= 0).all():
        return area
    kept: list[Points] = []
    for i in range(len(area)):
        a, b, ga, gb = area[i - 1], area[i], gap[i - 1], gap[i]
        if (ga >= 0) != (gb >= 0):
            kept.append(a + (b - a) * (ga / (ga - gb)))
        if gb >= 0:
            kept.append(b)
    return np.array(kept).reshape(-1, 2)


@dataclass(frozen=True)
class Textures:
    """Noise fields of the whole picture in perspective, each about -1 to 1."""

    fields: dict[str, Field]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, camera: Camera, yaw: float, *, furrows: bool = False
    ) -> Textures:
        """Draw tiles of noise and lay them on the ground, turned by ``yaw``.

        A texel of the grain is a pixel in the middle of the picture, so that nothing shimmers.
        Smooth fields are laid at half size and enlarged.
        """
        pixel = camera.height / np.sin(camera.pitch) / camera.focal  # metres in the middle
        fields = {"grain": _laid(_noise(rng, 0.8), camera, yaw, pixel)}
        small = replace(
            camera, size=(-(-camera.size[0] // 2), -(-camera.size[1] // 2)), focal=camera.focal / 2
        )
        for name, blur, metres in (("patches", 3.0, 0.25), ("drift", 8.0, 1.4)):
            half = _laid(_noise(rng, blur), small, yaw, metres)
            fields[name] = cv2.resize(half, camera.size[::-1], interpolation=cv2.INTER_LINEAR)
        fields["slabs"] = _laid(_slabs(rng), camera, yaw, 3.2 / 32)
        quarter = float(rng.integers(2)) * np.pi / 2
        if furrows:
            fields["furrows"] = _laid(_furrows(), camera, yaw + quarter, 2.4 / 32)
        return cls(fields)


def _noise(rng: np.random.Generator, blur: float) -> Field:
    """A tile of blurred noise that repeats without a seam, about -1 to 1."""
    tile = _wrapped_blur(rng.standard_normal((512, 512), dtype=np.float32), blur)
    return np.asarray(tile / (2.2 * tile.std()), dtype=np.float32)


def _wrapped_blur(noise: Field, sigma: float) -> Field:
    edge = int(4 * sigma) + 1
    padded = cv2.copyMakeBorder(noise, edge, edge, edge, edge, cv2.BORDER_WRAP)
    return np.asarray(cv2.GaussianBlur(padded, (0, 0), sigma)[edge:-edge, edge:-edge])


def _slabs(rng: np.random.Generator) -> Field:
    tile = np.repeat(np.repeat(rng.uniform(-0.35, 0.35, (8, 8)), 32, axis=0), 32, axis=1)
    tile[::32] = tile[:, ::32] = -1.0
    return np.asarray(cv2.GaussianBlur(tile.astype(np.float32), (0, 0), 0.7))


def _furrows() -> Field:
    wave = np.sin(np.arange(256) * 2 * np.pi / 32)
    return np.ascontiguousarray(np.tile(wave, (256, 1)), dtype=np.float32)


def _laid(tile: Field, camera: Camera, yaw: float, texel: float) -> Field:
    """A repeated tile seen on the ground; ``texel`` metres an element."""
    sin, cos = np.sin(yaw), np.cos(yaw)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    matrix = camera.ground_matrix @ turn @ np.diag([texel, texel, 1.0])
    height, width = camera.size
    levels = np.clip(tile * 100 + 128, 0, 255).astype(np.uint8)
    flags = cv2.INTER_LINEAR
    seen = cv2.warpPerspective(
        levels, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP
    )
    return np.asarray((seen.astype(np.float32) - 128) / 100)
