"""The plan of a scene: what lies where, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmnet.pipeline.scenes.buildings import Building
from dmnet.pipeline.scenes.camera import Camera, Points
from dmnet.pipeline.scenes.objects import MAKERS, PEOPLE, Maker, rider
from dmnet.pipeline.scenes.trees import Tree

_SMALLEST = {1: 5.0, 2: 5.5, 3: 5.0, 10: 4.5}
"""Pixels a metre below which a class is not placed: it would be a smear."""

_RADIUS = {1: 0.25, 2: 0.3, 3: 0.42, 7: 0.9, 8: 0.95, 10: 0.45}
"""Metres around a standing object that others keep free; 1.15 for the other classes."""

Rect = tuple[float, float, float, float]
"""``(u1, u2, v1, v2)`` metres in the town's own axes."""


@dataclass(frozen=True)
class Item:
    """One object: category, what draws it, where it stands ``(x, y, z)`` and where it heads."""

    label: int
    maker: Maker
    place: NDArray[np.float64]
    heading: float


@dataclass
class Plan:
    """Collects paint, objects, trees and buildings, given in the town's axes ``(u, v)``.

    The town is turned by ``yaw`` against the camera; its origin lies in the middle of the picture.
    """

    camera: Camera
    rng: np.random.Generator
    yaw: float
    paints: list[tuple[list[Points], str, ArrayLike]] = field(default_factory=list)
    stains: list[tuple[Points, int]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the middle of the picture on the ground."""
        height, width = self.camera.size
        self.origin = self.camera.to_ground(np.array([[width / 2, height / 2]]))[0]
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        self._turn = np.array([[cos, sin], [-sin, cos]])

    def world(self, points: Points) -> Points:
        """Town ``(N, 2)`` to world ``(N, 2)``."""
        return np.asarray(points @ self._turn + self.origin)

    @property
    def extent(self) -> Rect:
        """The rectangle in the town's axes that holds all that is seen, with a margin."""
        view = (self.camera.view - self.origin) @ self._turn.T
        (u1, v1), (u2, v2) = view.min(axis=0) - 12, view.max(axis=0) + 12
        return float(u1), float(u2), float(v1), float(v2)

    def in_view(self, points: Points, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which town points ``(N, 2)`` show in the picture, ``margin`` pixels beyond included."""
        return self._shown(self.world(points), margin)

    def _shown(self, world: Points, margin: float) -> NDArray[np.bool_]:
        height, width = self.camera.size
        x, y = self.camera.project(world[:, :2]).T
        ahead = self.camera.depth(world[:, :2]) > 0.25 * self.camera.height
        inside = (x > -margin) & (x < width + margin) & (y > -margin) & (y < height + margin)
        return np.asarray(ahead & inside)

    def paint(self, material: str, areas: list[Points], tint: ArrayLike = 0.0) -> None:
        """Paint areas (town, ``(N, 2)`` each), over what was painted before."""
        if areas:
            self.paints.append(([self.world(a) for a in areas], material, tint))

    def stain(self, area: Points, strength: int) -> None:
        """Darken an area (town, ``(N, 2)``) a little; 255 is as dark as full shadow."""
        self.stains.append((self.world(area), strength))

    def add(self, label: int, at: tuple[float, float], heading: float, seat: bool = False) -> None:
        """Place an object; ``seat`` puts a rider on it, who is an object of the class people."""
        place = self._place(at, 0.0)
        self.items.append(Item(label, MAKERS[label], place, heading + self.yaw))
        if seat:
            self.items.append(Item(PEOPLE, rider, place, heading + self.yaw))

    def _place(self, at: tuple[float, float], z: float) -> NDArray[np.float64]:
        (u, v), (ux, uy), (vx, vy) = at, self._turn[0], self._turn[1]
        return np.array([u * ux + v * vx + self.origin[0], u * uy + v * vy + self.origin[1], z])

    def settle(self, most: int) -> None:
        """Leave out what collides or does not show, then thin to ``most`` objects."""
        self.items = [self.items[i] for i in _apart(self.items)]
        items = np.array([item.place for item in self.items]).reshape(-1, 3)
        least = np.array([_SMALLEST.get(item.label, 0.0) for item in self.items])
        keep = self._shown(items, 60) & (self.camera.scale(items) >= least)
        self.items = [item for item, kept in zip(self.items, keep, strict=True) if kept]
        trees = np.array([tree.place for tree in self.trees]).reshape(-1, 3)
        keep = self._shown(trees, 150)
        self.trees = [tree for tree, kept in zip(self.trees, keep, strict=True) if kept]
        self.thin(most)

    def thin(self, most: int) -> None:
        """Leave out objects at random until ``most`` are left; riders go with their seats."""
        seated = [item.maker is rider for item in self.items]
        starts = [i for i, on in enumerate(seated) if not on]
        groups = [[i, i + 1] if i + 1 < len(seated) and seated[i + 1] else [i] for i in starts]
        spare = len(self.items) - most
        gone: set[int] = set()
        for number in self.rng.permutation(len(groups)).tolist() if spare > 0 else []:
            if len(gone) >= spare:
                break
            gone.update(groups[number])
        self.items = [item for i, item in enumerate(self.items) if i not in gone]

    def tree(self, at: tuple[float, float], radius: float) -> None:
        """Plant a tree or, with a small radius, a bush."""
        high = radius * (0.6 if radius < 1.3 else self.rng.uniform(0.95, 1.25))
        self.trees.append(Tree(self._place(at, high), radius, int(self.rng.integers(1000))))

    def building(self, rect: Rect, height: float) -> None:
        """Put a building on a rectangle."""
        rng = self.rng
        u1, u2, v1, v2 = rect
        corners = np.array([[u1, v1], [u2, v1], [u2, v2], [u1, v2]])
        if not self.in_view(np.vstack([corners, corners.mean(axis=0)]), 400).any():
            return
        place = np.append(self.world(corners.mean(axis=0)[None])[0], 0.0)
        half = ((u2 - u1) / 2, (v2 - v1) / 2)
        style = int(rng.choice([0, 0, 1, 2] if height < 13 else [0]))
        wall = _WALLS[rng.integers(len(_WALLS))] + rng.normal(0, 6, 3)
        roofs = _ROOFS[style]
        roof = np.array(roofs[rng.integers(len(roofs))]) + rng.normal(0, 5, 3)
        seed = int(rng.integers(2**31))
        self.buildings.append(Building(place, half, self.yaw, height, wall, roof, style, seed))


def _apart(items: list[Item]) -> list[int]:
    """Indices of the items that do not stand in an earlier one; riders stay on their seats."""
    places = np.array([item.place[:2] for item in items]).reshape(-1, 2)
    radius = np.array([_RADIUS.get(item.label, 1.15) for item in items])
    kept: list[int] = []
    for i, item in enumerate(items):
        if item.maker is rider:
            if kept and kept[-1] == i - 1:
                kept.append(i)
            continue
        gap = np.hypot(*(places[kept] - places[i]).T) if kept else np.zeros(0)
        if (gap >= radius[kept] + radius[i]).all():
            kept.append(i)
    return kept


_WALLS = np.array(
    [[206, 198, 184], [184, 178, 170], [198, 170, 146], [172, 120, 98], [216, 214, 208]], float
)
_ROOFS: dict[int, list[tuple[float, float, float]]] = {
    0: [(150, 148, 142), (128, 126, 124), (176, 170, 160), (142, 120, 106)],
    1: [(62, 112, 168), (176, 182, 186), (150, 72, 62), (84, 128, 140)],
    2: [(150, 76, 58), (126, 70, 58), (98, 92, 92)],
}


def rect_outline(rect: Rect) -> Points:
    """Corners ``(4, 2)`` of a rectangle."""
    u1, u2, v1, v2 = rect
    return np.array([[u1, v1], [u2, v1], [u2, v2], [u1, v2]])


def disc(middle: tuple[float, float], radius: float) -> Points:
    """A circle as a polygon, ``(32, 2)``."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack(
        [middle[0] + radius * np.cos(angle), middle[1] + radius * np.sin(angle)], axis=1
    )


def inset(rect: Rect, by: float) -> Rect:
    """A rectangle made smaller on all sides."""
    u1, u2, v1, v2 = rect
    return u1 + by, u2 - by, v1 + by, v2 - by
