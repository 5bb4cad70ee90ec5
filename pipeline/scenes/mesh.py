"""Small solids: stacks of tapered prisms with a colour for each face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = NDArray[np.float64]
"""``(3,)`` RGB, 0 to 255."""

_CORNERS = 8


@dataclass(frozen=True)
class Mesh:
    """Faces of convex parts.

    ``vertices`` ``(V, 3)`` metres, x is forward; ``faces`` ``(F, 8)`` vertex indices,
    counter-clockwise seen from outside, the last one repeated; ``colours`` and ``normals``
    ``(F, 3)``; ``part`` ``(F,)`` index into ``layers`` ``(P,)`` (drawn from low to high) and
    ``middles`` ``(P, 2)``.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    colours: NDArray[np.float64]
    normals: NDArray[np.float64]
    part: NDArray[np.int64]
    layers: NDArray[np.int64]
    middles: NDArray[np.float64]


def rectangle(x1: float, x2: float, y1: float, y2: float, cut: float = 0.0) -> NDArray[np.float64]:
    """Counter-clockwise outline ``(4 or 8, 2)``; ``cut`` takes the corners off."""
    if cut <= 0:
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    c = cut
    return np.array(
        [
            [x1 + c, y1],
            [x2 - c, y1],
            [x2, y1 + c],
            [x2, y2 - c],
            [x2 - c, y2],
            [x1 + c, y2],
            [x1, y2 - c],
            [x1, y1 + c],
        ]
    )


class Builder:
    """Collects parts and gives the mesh."""

    def __init__(self) -> None:
        """Start without parts."""
        self._vertices: list[NDArray[np.float64]] = []
        self._faces: list[list[int]] = []
        self._colours: list[Colour] = []
        self._part: list[int] = []
        self._layers: list[int] = []
        self._middles: list[NDArray[np.float64]] = []
        self._count = 0

    def prism(
        self,
        bottom: NDArray[np.float64],
        z: tuple[float, float],
        side: ArrayLike,
        top: ArrayLike | None = None,
        *,
        lid: NDArray[np.float64] | None = None,
        layer: int = 0,
    ) -> Builder:
        """Add a solid between two outlines of as many corners, ``bottom`` and ``lid``.

        Args:
            bottom: outline ``(K, 2)`` at the lower z, counter-clockwise, K at most 8.
            z: lower and upper height in metres.
            side: one colour, or one for each side ``(K, 3)``.
            top: colour of the lid; the side's where it is not given.
            lid: outline at the upper z; the lower one where it is not given.
            layer: parts of a higher layer are drawn over those of a lower one.
        """
        corners = len(bottom)
        lid = bottom if lid is None else lid
        sides = np.broadcast_to(np.asarray(side, dtype=np.float64), (corners, 3))
        self._vertices += [
            np.column_stack([bottom, np.full(corners, z[0])]),
            np.column_stack([lid, np.full(corners, z[1])]),
        ]
        a, b = self._count, self._count + corners
        for i in range(corners):
            j = (i + 1) % corners
            self._faces.append([a + i, a + j, b + j, b + i] + [b + i] * (_CORNERS - 4))
            self._colours.append(sides[i])
        over = [b + i for i in range(corners)]
        self._faces.append(over + [over[-1]] * (_CORNERS - corners))
        self._colours.append(sides[0] if top is None else np.asarray(top, dtype=np.float64))
        self._part += [len(self._layers)] * (corners + 1)
        self._layers.append(layer)
        self._middles.append(bottom.mean(axis=0))
        self._count += 2 * corners
        return self

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        side: ArrayLike,
        top: ArrayLike | None = None,
        *,
        cut: float = 0.0,
        layer: int = 0,
    ) -> Builder:
        """Add a block."""
        return self.prism(rectangle(*x, *y, cut), z, side, top, layer=layer)

    def build(self) -> Mesh:
        """The mesh of all parts."""
        vertices = np.concatenate(self._vertices)
        faces = np.array(self._faces)
        return Mesh(
            vertices,
            faces,
            np.array(self._colours),
            _normals(vertices[faces]),
            np.array(self._part),
            np.array(self._layers),
            np.array(self._middles),
        )


def _normals(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normals ``(F, 3)`` of faces given as ``(F, 8, 3)`` (Newell's method)."""
    following = np.roll(corners, -1, axis=1)
    normal = np.cross(corners, following).sum(axis=1)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.asarray(normal / np.maximum(length, 1e-12))


def turned(vertices: NDArray[np.float64], heading: float) -> NDArray[np.float64]:
    """Vectors ``(N, 3)`` turned about z by ``heading`` radians; a new array."""
    sin, cos = np.sin(heading), np.cos(heading)
    out = vertices.copy()
    out[:, 0] = vertices[:, 0] * cos - vertices[:, 1] * sin
    out[:, 1] = vertices[:, 0] * sin + vertices[:, 1] * cos
    return out
